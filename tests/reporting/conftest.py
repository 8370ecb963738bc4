import os
from pathlib import Path

import pytest

import wandb
from qwenvl_train.reporting.reporter import RunInfo

from .rows import COMPONENTS, CONFIG


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    folder = tmp_path / "receipts"
    folder.mkdir()
    return RunInfo("receipts", folder, CONFIG, COMPONENTS, total_steps=120, start_step=0)


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    """A user without W&B settings or login."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def said() -> list[str]:
    return []
