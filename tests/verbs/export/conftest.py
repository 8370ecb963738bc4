from collections.abc import Callable
from pathlib import Path

import pytest

from qwenvl_train.verbs.export import reload, verifying
from tests.conftest import conversation
from tests.verbs.export.runs import write_run


@pytest.fixture
def in_this_process(monkeypatch):
    """Reloads exports without a new process, which takes ten seconds to import transformers."""
    monkeypatch.setattr(verifying, "in_new_process", lambda job, file: reload.main(job))
    monkeypatch.setattr(verifying, "_NEW_TOKENS", 8)


@pytest.fixture
def rows(pictures, write_rows) -> Path:
    return write_rows(
        [
            conversation(("user", [pictures[3], "What?"]), ("assistant", ["A red circle on the left."])),
            conversation(("user", ["Who?"]), ("assistant", ["Nobody."]), ("user", ["Me?"]), ("assistant", ["No."])),
        ]
    )


@pytest.fixture
def make_run(checkpoints, rows, tmp_path) -> Callable[..., Path]:
    """Writes a run folder of a family."""

    def make(model_type: str, **settings) -> Path:
        return write_run(tmp_path / "runs" / "mine", checkpoints[model_type], model_type, rows, **settings)

    return make
