"""Which checkpoints stay on disk, and which is the best."""

import json
from pathlib import Path

from qwenvl_train.reporting.checkpoints import best_of, surplus
from qwenvl_train.step_folders import saved


def checkpoints(folder: Path, **losses: float | None) -> list[Path]:
    """Make a checkpoint for each step, with the held-out loss of the evaluation at this step, or without one."""
    for step, loss in losses.items():
        (made := folder / step.replace("_", "-")).mkdir()
        if loss is not None:
            figures = {"eval_loss": loss, "eval_exact_match": loss / 10}
            (made / "evaluation.json").write_text(json.dumps(figures))
    return saved(folder)


def left(folder: Path, keep: int, metric: str = "eval_loss") -> list[str]:
    found = saved(folder)
    removed = surplus(found, keep, metric)
    return [path.name for path in found if path not in removed]


def test_the_best_stays_beside_the_newest(tmp_path):
    checkpoints(tmp_path, step_10=0.9, step_20=0.2, step_30=0.5, step_40=0.6, step_100=0.7)
    assert left(tmp_path, 3) == ["step-20", "step-40", "step-100"]
    assert left(tmp_path, 2) == left(tmp_path, 1) == ["step-20", "step-100"]
    assert left(tmp_path, 9) == ["step-10", "step-20", "step-30", "step-40", "step-100"]


def test_a_higher_score_is_better_and_a_lower_loss(tmp_path):
    found = checkpoints(tmp_path, step_10=0.9, step_20=0.2, step_30=0.5)
    assert best_of(found, "eval_loss") == (tmp_path / "step-20", 0.2)
    assert best_of(found, "eval_exact_match") == (tmp_path / "step-10", 0.09)
    assert left(tmp_path, 1, "eval_exact_match") == ["step-10", "step-30"]


def test_only_the_evaluation_at_its_own_step_counts(tmp_path):
    """A checkpoint without one, such as that of an interrupted run, is never the best; NaN is stored as null."""
    found = checkpoints(tmp_path, step_10=0.9, step_20=None, step_30=0.5)
    (tmp_path / "step-30" / "evaluation.json").write_text('{"eval_loss": null}')
    assert best_of(found, "eval_loss") == (tmp_path / "step-10", 0.9)
    assert left(tmp_path, 2) == ["step-10", "step-30"]
    assert best_of(found[1:], "eval_loss") is None
    assert best_of([], "eval_loss") is None


def test_without_scores_the_newest_stay(tmp_path):
    checkpoints(tmp_path, step_10=None, step_20=None, step_30=None)
    assert left(tmp_path, 2) == ["step-20", "step-30"]


def test_of_equal_scores_the_first_is_the_best(tmp_path):
    found = checkpoints(tmp_path, step_10=0.5, step_20=0.5)
    assert best_of(found, "eval_loss").checkpoint.name == "step-10"
