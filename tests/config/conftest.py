import pytest

from qwenvl_train.config.rules import machine


@pytest.fixture(autouse=True)
def bitsandbytes(monkeypatch):
    """Pretend that bitsandbytes is installed, so that every recipe and group is valid wherever the tests run."""
    monkeypatch.setattr(machine, "is_installed", lambda module: True)
