"""The formatting of figures for people. The terminal and the report use the same formats."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from qwenvl_train.config.best import GENERATED

RATIOS = ("exact_match", "accuracy", "accuracies", "mfu", "data_wait", "pack_fill")

Format = Literal["percent", "scientific", "loss", "number"]
"""How the values of a metric are written."""

EVALUATION_FIRST = ("eval_rewards/accuracies", "eval_exact_match", "eval_token_accuracy", "eval_loss")
"""The scores of evaluations, the one that says most first."""

_IN_WORDS = {
    "rewards/chosen": "reward of chosen answers",
    "rewards/rejected": "reward of rejected answers",
    "rewards/accuracies": "reward accuracy",
    "rewards/margins": "reward margin",
    "logps/chosen": "log-probability of chosen answers",
    "logps/rejected": "log-probability of rejected answers",
    "kl": "KL",
}
"""The names of DPO metrics for people. The keys are the names that TRL uses."""


def count(value: float) -> str:
    return f"{value:,.0f}"


def many(number: int, noun: str, several: str | None = None) -> str:
    """Return the number with its noun, such as 1 sample or 2 samples."""
    return f"{count(number)} {noun if number == 1 else several or noun + ('es' if noun.endswith('ch') else 's')}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def with_unit(value: float, unit: str) -> str:
    """Return a figure with its unit, such as 1,280 pixels. With the unit %, the figure is a share of 1."""
    if unit == "%":
        return percent(value)
    digits = 0 if value == round(value) or abs(value) >= 1000 else 2 if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f} {unit}".rstrip()


def duration(seconds: float) -> str:
    """Format a duration with at most two units, because seconds do not matter in a duration of days."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    return is_number(value) and math.isfinite(value)  # type: ignore[arg-type]


def is_ratio(metric: str) -> bool:
    """Return whether a metric is a share of 1, which is shown in percent. The scores of generated answers are, except
    for those of the user's own functions, whose names have a dot."""
    if f"eval_{metric.removeprefix('eval_')}".startswith(GENERATED):
        return "." not in metric.partition("@")[0]
    return metric.endswith(RATIOS)


def label(metric: str) -> str:
    """Return the name of a metric for people. For example, eval_exact_match becomes exact match."""
    metric = _IN_WORDS.get(metric.removeprefix("eval_"), metric)
    return metric.removeprefix("eval_").replace("_", " ").replace("/", " ")


def main_metrics(evaluation: Mapping[str, Any], best_metric: str | None = None) -> list[str]:
    """Return the metrics of an evaluation that stand for it, the most telling first: train.best_metric, the scores of
    generated answers, and then those of EVALUATION_FIRST. The loss, which is the default of train.best_metric, is last
    all the same."""
    chosen = [best_metric] if best_metric not in (None, EVALUATION_FIRST[-1]) else []
    generated = [key for key in evaluation if key.startswith(GENERATED)]
    return [key for key in dict.fromkeys((*chosen, *generated, *EVALUATION_FIRST)) if is_finite(evaluation.get(key))]


def format_of(metric: str) -> Format:
    """Return how the values of a metric are written."""
    if is_ratio(metric):
        return "percent"
    if metric.startswith(("lr", "update_ratio")):
        return "scientific"
    return "loss" if metric.removeprefix("eval_").rpartition("/")[2] == "loss" else "number"


def figure(metric: str, value: Any) -> str:
    """Format the value of a metric with a suitable number of digits. null in metrics.jsonl means not a number."""
    if value is None or not math.isfinite(value):
        return "not a number"
    match format_of(metric):
        case "percent":
            return percent(value)
        case "scientific":
            return f"{value:.1e}"
        case "loss":
            return f"{value:.4f}"
        case _:
            return count(value) if abs(value) >= 1000 else f"{value:.4g}"
