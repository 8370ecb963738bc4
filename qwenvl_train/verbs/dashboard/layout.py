"""The sections and panels of the W&B workspace of a project. It does not need wandb."""

from dataclasses import dataclass

from qwenvl_train.reporting.wandb import ANSWERS, REPORT


@dataclass(frozen=True)
class Plot:
    """Lines over the steps."""

    title: str
    metrics: tuple[str, ...] = ()
    pattern: str | None = None
    """A regular expression of the names of metrics, for those that depend on the run, instead of `metrics`."""
    logarithmic: bool = False


@dataclass(frozen=True)
class Answers:
    """The table of generated answers."""

    title: str
    table: str


@dataclass(frozen=True)
class Pages:
    """Pages that runs have logged."""

    title: str
    key: str


@dataclass(frozen=True)
class Section:
    name: str
    panels: tuple[Plot | Answers | Pages, ...]
    is_open: bool = True


LAYOUT = (
    Section(
        "Learning",
        (
            Plot("Loss", ("train/loss", "eval/loss")),
            Plot("Token accuracy", ("train/mean_token_accuracy", "eval/token_accuracy")),
            Plot("Held-out exact match", ("eval/exact_match",)),
            Plot("Training loss by source", pattern=r"train/sources/.*/loss"),
            Plot("Entropy", ("train/entropy",)),
        ),
    ),
    Section(
        "Scores",
        (
            Plot("Generated answers", pattern=r"scores/.*"),
            Plot("Exact match by source", pattern=r"eval/sources/.*/exact_match"),
            Plot("Loss by source", pattern=r"eval/sources/.*/loss"),
        ),
    ),
    Section("Answers", (Answers("Answers to held-out samples", ANSWERS), Pages("Report", REPORT))),
    Section(
        "Preferences (DPO)",
        (
            Plot("Reward accuracy", ("train/rewards/accuracies", "eval/rewards/accuracies")),
            Plot("Reward margin", ("train/rewards/margins", "eval/rewards/margins")),
            Plot("Reward", ("train/rewards/chosen", "train/rewards/rejected")),
            Plot("Log-probability of an answer", ("train/logps/chosen", "train/logps/rejected")),
            Plot("KL to the reference", ("train/kl", "eval/kl")),
            Plot("Losses", pattern=r"train/loss_.*"),
        ),
        is_open=False,
    ),
    Section(
        "Optimizer",
        (
            Plot("Learning rate", pattern=r"optimizer/lr.*"),
            Plot("Gradient norm before clipping", pattern=r"optimizer/grad_norm.*", logarithmic=True),
            Plot("Update relative to the weights", pattern=r"optimizer/update_ratio_.*", logarithmic=True),
        ),
        is_open=False,
    ),
    Section(
        "Speed and memory",
        (
            Plot("Tokens per second", ("speed/tokens_per_second", "speed/supervised_tokens_per_second")),
            Plot("Samples and images per second", ("speed/samples_per_second", "speed/images_per_second")),
            Plot("Model FLOPs utilization (MFU)", ("speed/mfu",)),
            Plot("Share of the time spent waiting for data", ("speed/data_wait",)),
            Plot("Fill of packed rows", ("speed/pack_fill",)),
            Plot("Seconds of a step, and the plan's", ("speed/step_seconds", "plan/step_seconds")),
            Plot("Peak memory in GiB, and the plan's", ("speed/memory_gib", "plan/memory_gib")),
            Plot("Seconds spent on saving", ("speed/save_seconds",)),
        ),
        is_open=False,
    ),
)


def in_words() -> list[str]:
    """Return the layout as lines of text."""
    lines = []
    for section in LAYOUT:
        lines.append(section.name)
        for panel in section.panels:
            match panel:
                case Plot():
                    shown = ", ".join(panel.metrics) if panel.pattern is None else panel.pattern
                case Answers():
                    shown = panel.table
                case Pages():
                    shown = panel.key
            lines.append(f"  {panel.title}: {shown}")
    return lines
