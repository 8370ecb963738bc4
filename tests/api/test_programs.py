"""The programs of docs/python.md, run as they are written there."""

import io
import os
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tests.commands import summary

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"^## ([^\n]+)\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The working directory of the programs, which has the data of the checkout."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "data").symlink_to(ROOT / "data")
    return folder


@pytest.fixture(scope="module")
def results(folder) -> dict[str, tuple[list[str], list[str]]]:
    """Of each program, the lines that it prints and the folders that it makes in runs/. Each has names of its own."""
    results = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "disabled")
        for title, program in PROGRAMS.items():
            before = set(os.listdir("runs")) if os.path.isdir("runs") else set()
            with redirect_stdout(io.StringIO()) as output:
                exec(program, {"__name__": "__main__"})
            results[title] = output.getvalue().splitlines(), sorted(set(os.listdir("runs")) - before - {".cache"})
    return results


def test_every_program_of_the_page_is_run_below():
    assert list(PROGRAMS) == ["A whole run", "Your own loop over packed rows", "Another trainer", "Preference pairs"]


def test_a_whole_run(results, folder):
    lines, made = results["A whole run"]
    assert lines[-1] == "runs/from_python"
    assert made == ["from_python"]
    assert summary(folder / "runs" / "from_python")["status"] == "done"


def test_an_own_loop(results):
    lines, made = results["Your own loop over packed rows"]
    losses = [float(line.split()[0]) for line in lines[-4:]]
    assert losses[-1] < losses[0]
    assert made == []  # only train() writes a run folder


def test_another_trainer(results):
    assert "'train_loss'" in results["Another trainer"][0][-1]


def test_preference_pairs(results):
    losses = [float(line) for line in results["Preference pairs"][0]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)  # the model is its own reference
    assert losses[-1] < losses[0]
