"""Curves of runs, and what makes them comparable."""

from pathlib import Path

import pytest

from tests.commands import rows

SHORT = (
    "data.packing=false", "data.workers=0", "train.accumulation=2", "train.log_steps=1", "train.warmup=0",
    "train.eval_batch_size=3",
)  # fmt: skip


def figures(folder: Path) -> list[tuple]:
    return [(row["step"], row["samples"], row["tokens"], row["loss"], row["grad_norm"]) for row in rows(folder)]


def assert_same_curve(mine: list[tuple], theirs: list[tuple]) -> None:
    assert [row[:3] for row in mine] == [row[:3] for row in theirs]
    for (*_, loss, norm), (*_, other_loss, other_norm) in zip(mine, theirs, strict=True):
        # Measured worst case over the four: loss 1.6e-7, norm 1.5e-6
        assert loss == pytest.approx(other_loss, rel=1e-5)
        assert norm == pytest.approx(other_norm, rel=1e-4)
