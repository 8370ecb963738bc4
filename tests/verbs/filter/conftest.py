from pathlib import Path

import pytest


@pytest.fixture
def filtered(verb, tmp_path):
    """Filters, and returns the folder and what was printed."""

    def run(*settings: str, code: int = 0, to: str = "out", workers: int = 0) -> tuple[Path, str, str]:
        own = (f"filter.to={tmp_path / to}", f"data.workers={workers}")
        return tmp_path / to, *verb("filter", *own, *settings, code=code)

    return run
