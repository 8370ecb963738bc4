from collections.abc import Callable
from functools import partial

import pytest

from qwenvl_train.cli import main


@pytest.fixture
def verb(tmp_path, capfd) -> Callable[..., tuple[str, str]]:
    """Runs a verb, which must end with this exit code, and returns its stdout and stderr."""

    def run(name: str, *words: str, code: int = 0) -> tuple[str, str]:
        capfd.readouterr()
        assert main([name, *words, f"output_dir={tmp_path / 'runs'}"]) == code
        return capfd.readouterr()

    return run


@pytest.fixture
def inspect(verb) -> Callable[..., tuple[str, str]]:
    return partial(verb, "inspect")


@pytest.fixture
def plan(verb) -> Callable[..., tuple[str, str]]:
    return partial(verb, "plan")
