"""The sample sets of tasks: what a tiny model learns from them, and that it is from pixels."""

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.tasks.table import TASKS
from tests.commands import read_lines, rows, train

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_task_samples.py"
# The metric of each task, the least that it rises to, and the most with shuffled media. Some steps of agents follow
# from the goal and the history alone; where to click is told by the screen.
SCORES = {
    "recognition": ("eval_generated/exact_match", 0.9, 0.4),
    "grounding": ("eval_generated/grounding", 0.5, 0.2),
    "ocr": ("eval_generated/fields", 0.75, 0.3),
    "documents": ("eval_generated/layout", 0.55, 0.3),
    "video": ("eval_generated/temporal", 0.33, 0.2),
    "mobile_agent": ("eval_generated/agent_action_point", 0.65, 0.58),
    "computer_use": ("eval_generated/agent_action_point", 0.4, 0.26),
}
STEPS = {"mobile_agent": 0.45, "computer_use": 0.45}
"""The least share of right steps that agents rise to. Before, they have at most 0.2."""
SHORTER = {"recognition": ("train.epochs=2", 0.7), "ocr": ("train.epochs=2", 0.4)}
"""Shorter trainings, and the least that the scores rise to in them."""
SHIFT = 97
"""How many rows away the image is that a row gets instead of its own."""


@pytest.mark.parametrize("task", SHORTER)
def test_the_score_rises_in_a_shorter_training(task, tmp_path):
    setting, least = SHORTER[task]
    before, after = before_and_after(tmp_path, task, setting)
    metric = SCORES[task][0]
    assert before[metric] <= 0.15
    assert after[metric] >= least


@pytest.mark.nightly
@pytest.mark.parametrize("task", SCORES)
def test_the_score_rises(task, tmp_path):
    before, after = before_and_after(tmp_path, task)
    metric, least, _ = SCORES[task]
    assert after[metric] >= least
    if task in STEPS:
        metric = "eval_generated/agent_action"
        assert after[metric] >= STEPS[task]
    assert before[metric] <= 0.2


def before_and_after(tmp_path: Path, task: str, *settings: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the scores before and after the training."""
    found = rows(train(tmp_path, "+recipe=sft_lora", f"+task={task}", *settings), SCORES[task][0])
    return found[0], found[-1]


@pytest.mark.nightly
@pytest.mark.parametrize("task", SCORES)
def test_images_of_other_rows_teach_nothing(task, tmp_path):
    metric, _, most = SCORES[task]
    folder = asset_dir("data") / task
    read = read_lines(folder / "train.jsonl")
    media = "videos" if task == "video" else "images"
    shown = [[str(folder / name) for name in row[media]] for row in read]
    for row, others in zip(read, shown[SHIFT:] + shown[:SHIFT], strict=True):
        row[media] = others
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_text("".join(json.dumps(row) + "\n" for row in read), encoding="utf-8")
    words = ("+recipe=sft_lora", f"+task={task}", f"data={task}", "model=tiny_tasks", f"data.train={shuffled}")
    assert rows(train(tmp_path, *words), metric)[-1][metric] <= most


@pytest.mark.nightly
@pytest.mark.parametrize("task", TASKS)
def test_the_script_draws_the_same_again(task, tmp_path):
    subprocess.run([sys.executable, str(SCRIPT), "--output", str(tmp_path), "--only", task], check=True)
    folder = asset_dir("data") / task
    for name in ("train.jsonl", "eval.jsonl"):
        assert read_lines(tmp_path / task / name) == read_lines(folder / name)
    drawn = [path for path in folder.rglob("*.*") if path.suffix in (".png", ".mp4")]
    assert drawn
    for path in drawn:
        again = tmp_path / task / path.relative_to(folder)
        if path.suffix == ".png":
            np.testing.assert_array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(path)))
        else:
            assert decoded(again) == decoded(path)


def decoded(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in file.decode(video=0)]
