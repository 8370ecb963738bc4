"""The precomputed inputs of the vision tower equal those that it would compute."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from qwenvl_train.batch import Segments
from qwenvl_train.data.render.vision_index import VisionIndex
from tests.loading import family_of

GRIDS = torch.tensor([[1, 4, 6], [3, 10, 2], [1, 2, 2], [2, 14, 16]])


@pytest.fixture
def tower(model_type, checkpoints) -> torch.nn.Module:
    config = AutoConfig.from_pretrained(checkpoints[model_type])
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config).model.visual


def test_the_tower_gives_the_same_with_it(model_type, tower, checkpoints):
    config = tower.config
    family = family_of(checkpoints[model_type])
    index = VisionIndex(config.spatial_merge_size, config.patch_size, family.window_size, family.position_side)(GRIDS)
    patches = int(GRIDS.prod(1).sum())
    pixels = torch.randn(patches, 3 * config.temporal_patch_size * config.patch_size**2)
    given = {key: value.cu_seqlens if isinstance(value, Segments) else value for key, value in index.items()}
    expected = tower(pixels, grid_thw=GRIDS, return_dict=True).pooler_output
    # The empty grids show that the tower uses only the given index.
    seen = tower(pixels, grid_thw=torch.empty(0, 3), return_dict=True, **given).pooler_output
    assert torch.equal(seen, expected)
