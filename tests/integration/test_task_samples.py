"""The sample sets of tasks: what a tiny model learns from them, and that it is from pixels."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qwenvl_train.config.assets import asset_dir
from tests.commands import read_lines, rows, train

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_task_samples.py"
SCORES = {"recognition": ("eval_generated/exact_match", 0.6, 0.35)}
"""The metric of each task, the least that it rises to, and the most with shuffled images, where a fifth is chance."""


@pytest.mark.nightly
@pytest.mark.parametrize("task", SCORES)
def test_the_score_rises(task, tmp_path):
    metric, least, _ = SCORES[task]
    found = rows(train(tmp_path, "+recipe=sft_lora", f"+task={task}"), metric)
    assert found[0][metric] <= 0.1
    assert found[-1][metric] >= least


@pytest.mark.nightly
@pytest.mark.parametrize("task", SCORES)
def test_images_of_other_rows_teach_nothing(task, tmp_path):
    metric, _, most = SCORES[task]
    folder = asset_dir("data") / task
    read = read_lines(folder / "train.jsonl")
    for row, other in zip(read, read[97:] + read[:97], strict=True):
        row["images"] = [str(folder / name) for name in other["images"]]
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_text("".join(json.dumps(row) + "\n" for row in read), encoding="utf-8")
    words = ("+recipe=sft_lora", f"+task={task}", f"data={task}", f"data.train={shuffled}")
    assert rows(train(tmp_path, *words), metric)[-1][metric] <= most


@pytest.mark.nightly
@pytest.mark.parametrize("task", SCORES)
def test_the_script_draws_the_same_again(task, tmp_path):
    subprocess.run([sys.executable, str(SCRIPT), "--output", str(tmp_path), "--only", task], check=True)
    folder = asset_dir("data") / task
    for name in ("train.jsonl", "eval.jsonl"):
        assert read_lines(tmp_path / task / name) == read_lines(folder / name)
    for path in (folder / "images").iterdir():
        drawn = np.asarray(Image.open(tmp_path / task / "images" / path.name))
        np.testing.assert_array_equal(drawn, np.asarray(Image.open(path)))
