from pathlib import Path

import pytest

from qwenvl_train.reporting.reporter import RunInfo

from .rows import COMPONENTS, CONFIG
from .wandb_server import KEY, wandb_server


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    folder = tmp_path / "receipts"
    folder.mkdir()
    return RunInfo("receipts", folder, CONFIG, COMPONENTS, total_steps=120, start_step=0)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def server(monkeypatch):
    """A stand-in for W&B's server, to which the user is logged in."""
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
