"""The scores of the checkpoints of a run, and which of them is the best."""

import json
from pathlib import Path
from typing import NamedTuple

from qwenvl_train.config.best import is_better
from qwenvl_train.reporting.reporter import Row
from qwenvl_train.reporting.wording import is_finite

EVALUATION = "evaluation.json"
"""Name of the file in a checkpoint that stores the metrics of the evaluation at its step. It is absent if there was no
evaluation at this step."""


class Best(NamedTuple):
    checkpoint: Path
    value: float
    """The value of the metric by which it is the best."""


def best_of(checkpoints: list[Path], metric: str) -> Best | None:
    """Return the best of some checkpoints by a metric of the evaluation at the step of each. The first one wins a tie.
    Return None if none of them has a value."""
    best: Best | None = None
    for checkpoint in checkpoints:
        value = evaluation_in(checkpoint).get(metric)
        if value is not None and is_finite(value) and (best is None or is_better(metric, value, best.value)):
            best = Best(checkpoint, value)
    return best


def surplus(checkpoints: list[Path], keep: int, metric: str) -> list[Path]:
    """Return the checkpoints to delete, so that `keep` of them stay: the newest, the best, and then the next newest. If
    `keep` is 1 and the best is not the newest, both stay."""
    best = best_of(checkpoints, metric)
    first = [checkpoints[-1], *([best.checkpoint] if best else [])]
    ranked = list(dict.fromkeys([*first, *reversed(checkpoints)]))
    return ranked[max(keep, len(set(first))) :]


def evaluation_in(checkpoint: Path) -> Row:
    """Return the metrics of the evaluation at the step of a checkpoint. Without an evaluation, there are none."""
    file = checkpoint / EVALUATION
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
