"""Figures as people read them, the same on the terminal and in the report."""

import math
from typing import Any

RATIOS = ("exact_match", "accuracy", "accuracies", "mfu", "data_wait", "pack_fill")

_IN_WORDS = {
    "rewards/chosen": "reward of chosen answers",
    "rewards/rejected": "reward of rejected answers",
    "rewards/accuracies": "reward accuracy",
    "rewards/margins": "reward margin",
    "logps/chosen": "log-probability of chosen answers",
    "logps/rejected": "log-probability of rejected answers",
    "kl": "KL",
}
"""Metrics of DPO, which are called what TRL calls them."""


def count(value: float) -> str:
    return f"{value:,.0f}"


def many(number: int, noun: str, several: str | None = None) -> str:
    """1 sample, 2 samples"""
    return f"{count(number)} {noun if number == 1 else several or f'{noun}s'}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Two units at most, because nobody needs the seconds of a day."""
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
    """Whether a metric is a share of 1, which people read in percent."""
    return metric.endswith(RATIOS)


def label(metric: str) -> str:
    """eval_exact_match → exact match."""
    metric = _IN_WORDS.get(metric.removeprefix("eval_"), metric)
    return metric.removeprefix("eval_").replace("_", " ").replace("/", " ")


def figure(metric: str, value: Any) -> str:
    """One metric's value with as many digits as help; null in metrics.jsonl stands for what is no number."""
    if value is None or not math.isfinite(value):
        return "not a number"
    if is_ratio(metric):
        return percent(value)
    if metric.startswith("lr"):
        return f"{value:.1e}"
    if metric.removeprefix("eval_") == "loss":
        return f"{value:.4f}"
    return count(value) if abs(value) >= 1000 else f"{value:.4g}"
