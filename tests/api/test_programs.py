"""The programs of docs/python.md, run as they are written there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import summary

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"^## ([^\n]+)\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def run_program(tmp_path):
    """Runs a program in a folder that has the data of the checkout, and returns its lines."""
    (tmp_path / "data").symlink_to(ROOT / "data")

    def run(title: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAMS[title]], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_every_program_of_the_page_is_run_below():
    assert list(PROGRAMS) == ["A whole run", "Your own loop over packed rows", "Another trainer", "Preference pairs"]


def test_a_whole_run(run_program, tmp_path):
    assert run_program("A whole run")[-1] == "runs/from_python"
    assert summary(tmp_path / "runs" / "from_python")["status"] == "done"


def test_an_own_loop(run_program, tmp_path):
    lines = run_program("Your own loop over packed rows")[-4:]
    losses = [float(line.split()[0]) for line in lines]
    assert losses[-1] < losses[0]
    assert not list((tmp_path / "runs").glob("sft_lora*"))  # only train() writes a run folder


def test_another_trainer(run_program):
    assert "'train_loss'" in run_program("Another trainer")[-1]


def test_preference_pairs(run_program):
    losses = [float(line) for line in run_program("Preference pairs")]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)  # the model is its own reference
    assert losses[-1] < losses[0]
