from pathlib import Path

import pytest

from qwenvl_train.reporting.reporter import RunInfo

from .rows import COMPONENTS, CONFIG


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    folder = tmp_path / "receipts"
    folder.mkdir()
    return RunInfo("receipts", folder, CONFIG, COMPONENTS, total_steps=120, start_step=0)


@pytest.fixture
def said() -> list[str]:
    return []
