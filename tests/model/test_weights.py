"""Weights are loaded as they are stored."""

from types import SimpleNamespace

import pytest
import torch
from transformers.core_model_loading import Transpose

from qwenvl_train.model.load import shapes_before_sharding


def test_square_experts_are_written_as_they_are_read():
    """A reader would not transpose them back, since it cannot tell them apart from transposed ones."""
    sharded = SimpleNamespace(shape=torch.Size([0]), ds_shape=torch.Size([4, 6, 6]))
    model = SimpleNamespace(get_parameter={"experts": sharded}.__getitem__)
    trained = torch.arange(144.0).reshape(4, 6, 6)
    patterns = {"source_patterns": ["experts"], "target_patterns": ["experts"]}
    with shapes_before_sharding():
        writing = Transpose(1, 2, check_dims=True).reverse_op
        written = writing.convert({"experts": trained}, **patterns, full_layer_name="experts", model=model)
    assert torch.equal(written["experts"], trained)


@pytest.mark.parametrize("shape", [(4, 6, 2), (4, 2, 6)], ids=["as transformers writes it", "as published"])
def test_experts_are_transposed_by_the_shape_that_they_have_before_sharding(shape):
    """The weights of a model that ZeRO-3 has sharded are empty."""
    sharded = SimpleNamespace(shape=torch.Size([0]), ds_shape=torch.Size([4, 6, 2]))
    model = SimpleNamespace(get_parameter=lambda name: {"layers.0.experts": sharded}[name])
    stored = torch.arange(48.0).reshape(shape)
    patterns = {"source_patterns": ["experts"], "target_patterns": ["experts"]}
    with shapes_before_sharding():
        operation = Transpose(1, 2, check_dims=True)
        found = operation.convert({"experts": stored}, **patterns, full_layer_name="layers.0.experts", model=model)
    assert torch.equal(found["experts"], stored if shape == (4, 6, 2) else stored.transpose(1, 2))
