"""Fixtures with one packed row for the tiny model of each family."""

import pytest
from transformers import AutoProcessor

from qwenvl_train.data.batches.collate import collate
from tests.conftest import conversation, sample_of
from tests.loading import renderer_of


@pytest.fixture(scope="session")
def batches(checkpoints, pictures):
    """For each family, a processor and a packed row of two samples: one with an image, one without."""
    cache = {}

    def make(model_type):
        if model_type not in cache:
            processor = AutoProcessor.from_pretrained(checkpoints[model_type])
            renderer = renderer_of(processor, checkpoints[model_type])
            rows = [
                conversation(("user", [pictures[3], "What?"]), ("assistant", ["A red circle on the left."])),
                conversation(("user", ["Who?"]), ("assistant", ["Nobody but you and me."])),
            ]
            cache[model_type] = processor, collate([renderer.render(sample_of(row)) for row in rows], renderer)
        return cache[model_type]

    return make
