"""Find changes of settings that make a run fit into memory, the cheapest change first, and one that makes it wait less
for communication."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qwenvl_train.config.compose import compose
from qwenvl_train.errors import UserError
from qwenvl_train.verbs.plan.settings import PLAN, PlanConfig

Change = dict[str, Any]
"""New values of settings, by dotted key."""

_MOST_DEVICES = 1024


@dataclass(frozen=True)
class Remedy:
    """A change of settings with which the run fits."""

    words: str
    """Arguments to add to the command."""
    config: PlanConfig
    total: int
    """Bytes that the changed run takes on each device."""


def remedies(config: PlanConfig, longest: int | None, takes: Callable[[PlanConfig], int], room: float) -> list[Remedy]:
    """Return the cheapest change that makes the run fit.

    If that change alters the training, also return the number of devices with which no such change is needed.
    `longest` is the number of tokens in the longest sample; rows cannot be made shorter than that. `takes` returns the
    bytes that a run takes on each device, and `room` is the bytes of a device.
    """
    if same := _first(_same_training(config), takes, room):
        return [same]
    others = (_first(_other_training(config, longest), takes, room), _first(_more_devices(config), takes, room))
    return [remedy for remedy in others if remedy]


def lower_stage(
    config: PlanConfig,
    takes: Callable[[PlanConfig], int],
    room: float,
    waits: Callable[[PlanConfig], float],
) -> Remedy | None:
    """Return the lower stage of DeepSpeed with which the run fits and its devices wait least for communication, or None
    if none saves a tenth of the waiting. `waits` returns the seconds of a step in which they wait."""
    best, least = None, 0.9 * waits(config)
    for stage in range(config.deepspeed.stage - 1, 0, -1):
        words = f"deepspeed=zero{stage}"
        _, changed = _changed(config, [(words, _shipped(f"zero{stage}"))])
        total = _allowed(changed, takes)
        if total is not None and total <= room and waits(changed) < least:
            best, least = Remedy(words, changed, total), waits(changed)
    return best


def _first(ways: Iterator[tuple[str, PlanConfig]], takes: Callable[[PlanConfig], int], room: float) -> Remedy | None:
    for words, changed in ways:
        total = _allowed(changed, takes)
        if total is not None and total <= room:
            return Remedy(words, changed, total)
    return None


def _allowed(config: PlanConfig, takes: Callable[[PlanConfig], int]) -> int | None:
    """Return the bytes that the run takes, or None if it would refuse these settings."""
    if PLAN.broken_rules(config, frozenset()):
        return None
    try:
        return takes(config)
    except UserError:
        return None


def _same_training(config: PlanConfig) -> Iterator[tuple[str, PlanConfig]]:
    """Yield changes that keep the training the same: first those that only take more time, then those that change
    rounding."""
    slower, shared, eight_bit = list(_slower(config)), list(_shared(config)), _eight_bit(config)
    copyless = _without_copy(config)
    for way in [*copyless, *slower, *shared, *eight_bit]:
        yield _changed(config, [way])
    for base in ([*copyless, *slower], slower) if copyless else (slower,):
        if len(base) > 1:
            yield _changed(config, base)
        if base:
            for way in [*shared, *eight_bit]:
                yield _changed(config, [*base, way])
    for ways in _strongest(config):
        yield _changed(config, ways)
    for way in _offloaded(config):
        yield _changed(config, [*slower, way])


def _other_training(config: PlanConfig, longest: int | None) -> Iterator[tuple[str, PlanConfig]]:
    """Yield changes that alter the training: first shorter packed rows, then fewer trained weights."""
    slower, shared = list(_slower(config)), list(_shared(config))
    # Without packing a shorter limit changes nothing, because the limit never goes below the longest sample. If that is
    # not known, the limit on samples must become shorter, too.
    key, most = (
        ("data.max_length", config.data.max_length) if longest is None else ("data.pack_length", config.pack_length)
    )
    while most is not None and most // 2 >= max(longest or 0, 1024):
        most //= 2
        for ways in _strongest(config):
            yield _changed(config, [*ways, (f"{key}={most}", {key: most})])
    lora = {"tune_mm_vision": False, "tune_mm_mlp": config.method == "sft", "tune_mm_llm": True} | {
        "lora.vision": False, "lora.mlp": False, "lora.llm": True, "train.lr_vision": None,
    }  # fmt: skip
    if config.tuned("llm") and not config.adapted("llm"):
        yield _changed(config, [(f"+recipe={config.method}_lora", lora), *slower])
        yield _changed(config, [(f"+recipe={config.method}_lora", lora), *slower, *shared[-1:]])
    if config.model.quantize != "nf4" and config.tuned("llm"):
        four_bit = lora | {"model.quantize": "nf4", "deepspeed.stage": 0}
        words = "+recipe=sft_qlora" if config.method == "sft" else f"+recipe={config.method}_lora model.quantize=nf4"
        words += " deepspeed=none" if config.deepspeed.stage else ""
        yield _changed(config, [(words, four_bit), *slower])


def _strongest(config: PlanConfig) -> list[list[tuple[str, Change]]]:
    """Return the combinations of changes that save the most memory while the training stays the same.

    dpo.reference=cached and ZeRO-3 are never combined, because they exclude each other.
    """
    slower, shared, eight_bit = list(_slower(config)), list(_shared(config)), _eight_bit(config)
    ways = [[*slower, *shared[-1:], *eight_bit]]
    if copyless := _without_copy(config):
        whole = [way for way in shared if way[1]["deepspeed.stage"] != 3]
        ways.insert(0, [*copyless, *slower, *whole[-1:], *eight_bit])
    return ways


def _without_copy(config: PlanConfig) -> list[tuple[str, Change]]:
    return [("dpo.reference=cached", {"dpo.reference": "cached"})] if config.reference == "model" else []


def _eight_bit(config: PlanConfig) -> list[tuple[str, Change]]:
    return [] if config.optim.name == "adamw_8bit" else [("optim=adamw_8bit", {"optim.name": "adamw_8bit"})]


def _slower(config: PlanConfig) -> Iterator[tuple[str, Change]]:
    size, passes = config.train.batch_size, config.accumulation
    if size > 1:
        words = f"train.batch_size=1 train.accumulation={passes * size}"
        yield words, {"train.batch_size": 1, "train.accumulation": passes * size}
    if config.train.checkpointing != "all":
        yield "train.checkpointing=all", {"train.checkpointing": "all"}


def _shared(config: PlanConfig) -> Iterator[tuple[str, Change]]:
    """Yield the stages of DeepSpeed that save more memory than the current one.

    ZeRO-3 needs more than one device. ZeRO-2 saves memory even on one device, because it keeps weights in half
    precision.
    """
    for stage in (2, 3):
        if stage > config.deepspeed.stage and (stage == 2 or config.plan.devices > 1):
            yield (
                f"deepspeed=zero{stage}",
                {"deepspeed.stage": stage} if config.deepspeed.stage else _shipped(f"zero{stage}"),
            )


def _offloaded(config: PlanConfig) -> Iterator[tuple[str, Change]]:
    """Yield the options of the group deepspeed that keep more in the host's memory than the run does. They take the
    most time."""
    chosen = config.deepspeed
    if chosen.offload_optimizer == "none" and config.optim.name == "adamw":
        if chosen.stage < 3:
            yield "deepspeed=zero2_offload", _shipped("zero2_offload")
        yield "deepspeed=zero3_offload", _shipped("zero3_offload")


def _shipped(option: str) -> Change:
    """Return the settings of a shipped option of the group deepspeed."""
    section = compose(["tune_mm_llm=true", f"deepspeed={option}"]).config.deepspeed
    return {f"deepspeed.{key}": value for key, value in section}


def _more_devices(config: PlanConfig) -> Iterator[tuple[str, PlanConfig]]:
    slower = list(_slower(config))
    devices = config.plan.devices
    while (devices := 2 * devices) <= _MOST_DEVICES:
        more = (f"plan.devices={devices}", {"plan.devices": devices})
        for way in _shared(config.model_copy(update={"plan": config.plan.model_copy(update={"devices": devices})})):
            yield _changed(config, [*slower, way, more])
        if config.deepspeed.stage == 3:
            yield _changed(config, [*slower, more])


def _changed(config: PlanConfig, ways: list[tuple[str, Change]]) -> tuple[str, PlanConfig]:
    tree = config.model_dump(mode="json")
    for _, change in ways:
        for key, value in change.items():
            *path, last = key.split(".")
            branch = tree
            for name in path:
                branch = branch[name]
            branch[last] = value
    return " ".join(words for words, _ in ways), PlanConfig.model_validate(tree)
