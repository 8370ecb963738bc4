"""The rehearsed cases. Each pair of two options occurs in at least one case, instead of all combinations."""

from dataclasses import dataclass
from itertools import product

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5")
KINDS = {
    "sft_full": ("+recipe=sft_full",),
    "sft_lora": ("+recipe=sft_lora",),
    "sft_vision": ("+recipe=sft_vision",),
    "sft_projector": ("+recipe=sft_projector",),
    "cache_vision": ("+recipe=sft_lora", "train.cache_vision=true"),
    "dpo_adapter": ("+recipe=dpo_lora",),
    "dpo_model": ("+recipe=dpo_full",),
    "dpo_cached": ("+recipe=dpo_full", "dpo.reference=cached"),
    "dpo_none": ("+recipe=dpo_full", "dpo.reference=none"),
}
"""The settings of each kind of run. Those of DPO are named after the reference."""


@dataclass(frozen=True)
class Case:
    family: str
    kind: str
    precision: str = "bf16"
    checkpointing: str = "all"
    evaluates: bool = True
    extra: tuple[str, ...] = ()
    """Additional settings, as on the command line."""

    def __str__(self) -> str:
        parts = [self.family, self.kind, self.precision]
        parts += ["kept"] if self.checkpointing == "none" else []
        parts += ["evaluates"] if self.evaluates else []
        return " ".join([*parts, *self.extra])

    @property
    def settings(self) -> list[str]:
        chosen = [*KINDS[self.kind], f"train.precision={self.precision}", f"train.checkpointing={self.checkpointing}"]
        given = {setting.partition("=")[0] for setting in self.extra}
        return [setting for setting in chosen if setting.partition("=")[0] not in given] + [*self.extra]


def is_daily(case: Case) -> bool:
    """Return whether a case is rehearsed every day: a third of them, with three kinds of each family, SFT and DPO among
    them, and at least one family of each kind. The others are rehearsed at night."""
    return (FAMILIES.index(case.family) + [*KINDS].index(case.kind)) % 3 == 0


def cases_by_pairs() -> list[Case]:
    """Return every family with every kind. The other options rotate, so that each pair of options occurs."""
    cases = []
    for (row, family), (column, kind) in product(enumerate(FAMILIES), enumerate(KINDS)):
        half, kept = (row + column) % 2, (row // 2 + column) % 2
        evaluates = (row + row // 2 + column) % 2 == 0
        cases.append(Case(family, kind, ("fp16", "bf16")[half], ("all", "none")[kept], evaluates))
    return cases
