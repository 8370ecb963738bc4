"""A checkpoint's own parts, as a run would take them."""

from pathlib import Path

import torch

from qwenvl_train.batch import Segments
from qwenvl_train.data.render import Renderer
from qwenvl_train.families.family import Family
from qwenvl_train.model.load import load_family
from tests.settings import run_config


def family_of(checkpoint: Path) -> Family:
    return load_family(run_config(**{"model.path": str(checkpoint), "model.family": None}).model)


def renderer_of(processor, checkpoint: Path, pairs: bool = False, **data) -> Renderer:
    config = run_config(**{f"data.{key}": value for key, value in data.items()})
    return Renderer(processor, family_of(checkpoint), "test", config.model.video, config.data, pairs=pairs)


def assert_same(one, other) -> None:
    """Rows or batches, to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, Segments):
        assert_same(vars(one), vars(other))
    else:
        assert one == other
