"""The sizes in configs/model give the parameter counts of the published models, without their weights."""

from functools import cache

import pytest
import torch
from transformers import AutoModelForImageTextToText

from qwenvl_train.config.compose import compose
from qwenvl_train.config.options import groups
from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_config
from qwenvl_train.model.components import component_of
from qwenvl_train.model.shapes import architecture
from tests.settings import run_config

# The parameter counts in the published weight files. For Qwen2.5-VL-72B only the rounded 73.4 billion is confirmed, and
# the exact count of Qwen2-VL-72B (73,405,560,320), which has the same language model. The files of Qwen3.5 also have a
# layer that predicts further tokens (mtp.*), which transformers does not load and which is subtracted here. For
# 122B-A10B and 397B-A17B only the rounded totals of 125 and 403 billion are confirmed.
PUBLISHED = {
    "qwen2_vl_2b": 2_208_985_600,
    "qwen2_vl_7b": 8_291_375_616,
    "qwen2_5_vl_3b": 3_754_622_976,
    "qwen2_5_vl_7b": 8_292_166_656,
    "qwen2_5_vl_32b": 33_452_718_336,
    "qwen2_5_vl_72b": 73_410_777_344,
    "qwen3_vl_2b": 2_127_532_032,
    "qwen3_vl_4b": 4_437_815_808,
    "qwen3_vl_8b": 8_767_123_696,
    "qwen3_vl_32b": 33_357_390_064,
    "qwen3_vl_30b_a3b": 31_070_754_032,
    "qwen3_vl_235b_a22b": 235_670_022_896,
    "qwen3_5_0_8b": 873_438_784 - 20_452_864,
    "qwen3_5_2b": 2_274_069_824 - 60_828_160,
    "qwen3_5_4b": 4_659_865_088 - 120_599_552,
    "qwen3_5_9b": 9_653_104_368 - 243_290_624,
    "qwen3_5_27b": 27_781_427_952 - 424_699_392,
    "qwen3_5_35b_a3b": 35_951_822_704 - 844_640_768,
    "qwen3_5_122b_a10b": 122_562_817_776,
    "qwen3_5_397b_a17b": 396_802_360_816,
}
PUBLISHED |= {
    "qwen3_6_27b": PUBLISHED["qwen3_5_27b"],
    "qwen3_6_35b_a3b": PUBLISHED["qwen3_5_35b_a3b"],
    "qwen3_8_27b": PUBLISHED["qwen3_5_27b"],
}
ENTRIES = [option for option in groups()["model"] if option.startswith("qwen")]


@cache
def entry(name: str) -> ModelConfig:
    return compose(["tune_mm_mlp=true", f"model={name}"]).config.model


@pytest.mark.parametrize("name", ENTRIES)
def test_the_sizes_of_an_entry_make_the_published_number_of_parameters(name):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(architecture(entry(name)))
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]
    family = FAMILIES[entry(name).family]
    assert model.config.model_type == family.model_type
    assert {component_of(parameter, family) for parameter, _ in model.named_parameters()} == {"vision", "mlp", "llm"}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_size_arrives_and_none_is_left_to_a_default(name):
    model = entry(name)
    config, shape = architecture(model), model.shape
    renamed = {"hidden_size": "embed_dim", "out_hidden_size": "hidden_size"} if model.family == "qwen2_vl" else {}
    for key, value in shape.text.model_dump(exclude_none=True).items():
        assert getattr(config.text_config, key) == value, key
    for key, value in shape.vision.model_dump(exclude_none=True).items():
        if (model.family, key) != ("qwen2_vl", "intermediate_size"):
            here = getattr(config.vision_config, renamed.get(key, key))
            assert (tuple(here) if isinstance(here, list) else here) == value, key
    assert config.tie_word_embeddings == config.text_config.tie_word_embeddings == shape.tie_word_embeddings
    tiny = build_config(model.family)
    for half, given in ((tiny.text_config, shape.text), (tiny.vision_config, shape.vision)):
        for key in type(given).model_fields:
            assert key in renamed.values() or not hasattr(half, key) or getattr(given, key) is not None, key


def test_a_tower_sees_what_pictures_are_cut_into():
    """min_pixels equals four visual tokens."""
    for name in ENTRIES:
        vision = entry(name).shape.vision
        assert entry(name).min_pixels == 4 * (vision.patch_size * vision.spatial_merge_size) ** 2


def test_a_local_checkpoint_says_its_own_sizes(model_type, checkpoints):
    model = run_config(**{"model.path": str(checkpoints[model_type]), "model.family": None}).model
    assert architecture(model).text_config.hidden_size == build_config(model_type).text_config.hidden_size
    shape = entry("qwen3_vl_8b").shape.model_dump()
    assert (
        architecture(ModelConfig(**(model.model_dump() | {"shape": shape}))).to_dict() == architecture(model).to_dict()
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["model.path=Qwen/Some-VL"], "model= option"),
        (["model=qwen3_vl_8b", "model.shape=null"], "model= option"),
        (["model=qwen3_vl_8b", "model.family=qwen9"], "qwen9"),
    ],
)
def test_unknown_sizes_are_told(words, problem):
    with pytest.raises(UserError, match=problem):
        architecture(compose(["tune_mm_mlp=true", *words]).config.model)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("model.shape.text.hidden_size=0", "model.shape.text.hidden_size=0: must be"),
        ("model.shape.text.heads=3", "model.shape.text.heads=3: there is no such setting"),
    ],
)
def test_a_wrong_size_is_told_with_its_key(word, problem):
    with pytest.raises(UserError, match=problem):
        compose(["tune_mm_mlp=true", "model=qwen3_vl_8b", word])
