"""Runs of the real command inside the test's process, on small own data."""

import json
from pathlib import Path

from qwenvl_train.cli import main

QUIET = "logging.predictions=0"
"""No generated answers. An untrained model never ends one, so each takes 256 passes."""


def train(output: Path, *settings: str, name: str = "run") -> Path:
    """The run folder of a successful run."""
    where = (f"output_dir={output}", f"run_name={name}", "logging.wandb.mode=disabled")
    assert main([*settings, *where]) == 0
    return output / name


def read_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def rows(folder: Path, key: str = "loss") -> list[dict]:
    return [row for row in read_lines(folder / "metrics.jsonl") if key in row]


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
