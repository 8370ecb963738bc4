"""The FLOP count equals torch's own counter, which records every matrix product of the transformers models."""

import math
import sys
import time
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.qwen3_5 import modeling_qwen3_5
from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe

from qwenvl_train.batch import Contents, Piece
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import ROPE_3, build_config, build_model
from qwenvl_train.model.build import base_model
from qwenvl_train.model.components import COMPONENTS
from qwenvl_train.model.flops import FlopCount
from qwenvl_train.model.trainable import select_trained
from tests.conftest import in_rotation
from tests.settings import run_config

RANK = 8
WORDS, LEARNED = 7, 3
# The grids of the media of a sample: none; images whose sides are not whole windows; a video next to an image.
TEXT, PICTURES, CLIP = (), ((1, 6, 10), (1, 4, 14)), ((3, 4, 6), (1, 8, 2))
X, F, A = "frozen", "full", "lora"


def contents(*samples) -> Contents:
    return Contents(
        pieces=tuple((Piece(WORDS + visual_tokens(grids)),) for grids in samples),
        supervised=LEARNED * len(samples),
        grids=tuple(grid for grids in samples for grid in grids),
    )


def visual_tokens(grids) -> int:
    return sum(math.prod(grid) for grid in grids) // 4


def eager(model_type: str, **text) -> PreTrainedModel:
    """Use attention and experts made of plain matrix products, which are not recomputed in the backward pass."""
    model = build_model(model_type, text=text)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config._attn_implementation = config._experts_implementation = "eager"
    for block in model.model.language_model.layers:
        if hasattr(block, "linear_attn"):
            use_plain_products(sys.modules[type(block.linear_attn).__module__])
    return model


def use_plain_products(modeling: ModuleType) -> None:
    """Use a convolution and a recurrence made of plain matrix products, token by token. torch does not count all of
    transformers' own, and counts depthwise convolutions as if they were full ones in the backward pass."""
    modeling.causal_conv1d_fn = convolution
    modeling.torch_chunk_gated_delta_rule = recurrence


def convolution(states, weight, bias=None, activation=None, **_) -> torch.Tensor:
    windows = torch.nn.functional.pad(states, (weight.shape[1] - 1, 0)).unfold(-1, weight.shape[1], 1)
    return torch.nn.functional.silu((windows @ weight[..., None])[..., 0])


def recurrence(query, key, value, g, beta, **_) -> tuple[torch.Tensor, None]:
    each = value.shape[2] // key.shape[2]
    query, key = (torch.nn.functional.normalize(x.repeat_interleave(each, 2), dim=-1) for x in (query, key))
    outputs = []
    state = torch.zeros(value.shape[0], value.shape[2], key.shape[-1], value.shape[-1], requires_grad=True)
    for q, k, v, decay, share in zip(*(x.unbind(1) for x in (query, key, value, g, beta)), strict=True):
        state = state * decay.exp()[..., None, None]
        new = (v[..., None, :] - k[..., None, :] @ state) * share[..., None, None]
        state = state + k[..., None] @ new
        outputs.append((q[..., None, :] @ state)[..., 0, :])
    return torch.stack(outputs, 1), None


@pytest.fixture(autouse=True)
def own_functions(monkeypatch):
    """Give transformers its own functions back after a test."""
    for modeling in (modeling_qwen3_5, modeling_qwen3_5_moe):
        for name in ("causal_conv1d_fn", "torch_chunk_gated_delta_rule"):
            monkeypatch.setattr(modeling, name, getattr(modeling, name))


def loss(model: PreTrainedModel, grids) -> torch.Tensor:
    """Compute the loss with transformers for one sample, with logits at its supervised tokens."""
    config, media = model.config, {}
    ids = [torch.full((visual_tokens([grid]),), config.image_token_id) for grid in grids] + [torch.arange(WORDS)]
    if grids:
        vision = config.vision_config
        pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        media = {"pixel_values": torch.randn(sum(map(math.prod, grids)), pixels), "image_grid_thw": torch.tensor(grids)}
    length = WORDS + visual_tokens(grids)
    positions = torch.arange(length).expand(4, 1, length)
    hidden = model.model(
        input_ids=torch.cat(ids)[None], position_ids=positions, use_cache=False, **media
    ).last_hidden_state
    return model.lm_head(hidden[0, -LEARNED:]).logsumexp(-1).sum()


def counted_by_torch(model: PreTrainedModel, *samples, backward: bool) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        total = torch.stack([loss(model, grids) for grids in samples]).sum()
        if backward:
            total.backward()
    modules = {name.partition(".")[2]: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}
    return modules | {"total": counter.get_total_flops()}


def unseen_pairs(config: PreTrainedConfig, *samples) -> int:
    """Return the FLOPs of token pairs above the diagonal. torch counts them for plain causal attention, and the project
    does not."""
    text = config.text_config
    width = text.num_attention_heads * getattr(text, "head_dim", text.hidden_size // text.num_attention_heads)
    pairs = sum(length * (length - 1) // 2 for length in contents(*samples).lengths)
    attending = text.num_hidden_layers - (getattr(text, "layer_types", None) or []).count("linear_attention")
    return 4 * width * attending * pairs


@pytest.mark.parametrize(
    ("model_type", "samples"), in_rotation([(TEXT,), (PICTURES,), (CLIP,), (TEXT, PICTURES, CLIP)])
)
def test_the_forward_pass_of_each_component_equals_torch(model_type, samples):
    model = eager(model_type)
    theirs = counted_by_torch(model, *samples, backward=False)
    ours = FlopCount.of(model.config, dict.fromkeys(COMPONENTS, X), RANK).forward(contents(*samples))
    deepstack = len(getattr(model.config.vision_config, "deepstack_visual_indexes", ()))
    mergers = ["visual.merger", *(f"visual.deepstack_merger_list.{index}" for index in range(deepstack))]
    mlp = sum(theirs.get(name, 0) for name in mergers)
    assert ours.mlp == mlp
    assert ours.vision == theirs.get("visual", 0) - mlp
    assert ours.total + unseen_pairs(model.config, *samples) == theirs["total"]


WIDE_HEADS = {"head_dim": 32, "rope_parameters": {**ROPE_3, "mrope_section": [8, 4, 4]}}


@pytest.mark.parametrize(
    ("model_type", "text"),
    [
        ("qwen3_vl", WIDE_HEADS),
        ("qwen3_vl_moe", {"mlp_only_layers": [1]}),
        ("qwen3_vl_moe", {"decoder_sparse_step": 2}),
        ("qwen3_vl_moe", {"num_experts_per_tok": 3}),
    ],
)
def test_other_sizes_equal_torch(model_type, text):
    """The sizes have attention heads that together are wider than the model, dense layers among sparse ones, and more
    active experts."""
    model = eager(model_type, **text)
    ours = FlopCount.of(model.config, dict.fromkeys(COMPONENTS, X), RANK).forward(contents(TEXT))
    theirs = counted_by_torch(model, TEXT, backward=False)
    assert ours.total + unseen_pairs(model.config, TEXT) == theirs["total"]


# Modes of vision, mlp and llm.
MODES = [(F, F, F), (F, X, X), (X, F, X), (X, A, X), (A, A, A), (X, F, A)]


WAYS = [(modes, (PICTURES, CLIP)) for modes in MODES] + [((X, F, A), (TEXT, TEXT)), ((F, F, F), (TEXT,))]


@pytest.mark.parametrize(("model_type", "way"), in_rotation(WAYS))
def test_training_equals_torch(model_type, way):
    """The counts are equal. Adapters of experts are switched off here, and tested below."""
    modes, samples = way
    family = replace(FAMILIES[model_type], expert_weights=())
    settings = {"lora.rank": RANK}
    for component, mode in zip(COMPONENTS, modes, strict=True):
        settings |= {f"tune_mm_{component}": mode != X, f"lora.{component}": mode == A}
    model = base_model(select_trained(eager(model_type), family, run_config(**settings)))
    count = FlopCount.of(model.config, dict(zip(COMPONENTS, modes, strict=True)), RANK)
    ours = count.training(contents(*samples)).total + 3 * unseen_pairs(model.config, *samples)
    if FAMILIES[model_type].expert_weights and modes[2] == A:
        ours -= 3 * expert_adapters(model.config, *samples)
    assert ours == counted_by_torch(model, *samples, backward=True)["total"]


def expert_adapters(config: PreTrainedConfig, *samples) -> int:
    """Return the forward FLOPs of the adapters of active experts. PEFT multiplies the adapters of all experts, whatever
    the tokens, so that torch's count is not the required work."""
    text = config.text_config
    per_expert = 2 * RANK * (text.hidden_size + 2 * text.moe_intermediate_size)
    per_expert += 2 * RANK * (text.moe_intermediate_size + text.hidden_size)
    return per_expert * text.num_experts_per_tok * text.num_hidden_layers * sum(contents(*samples).lengths)


@pytest.mark.parametrize("modes", [(F, F, X), (X, A, X)])
def test_a_row_without_media_teaches_nothing_below_the_language_model(model_type, modes):
    count = FlopCount.of(build_config(model_type), dict(zip(COMPONENTS, modes, strict=True)), RANK)
    assert count.training(contents(TEXT, TEXT)) == count.forward(contents(TEXT, TEXT))
    assert count.training(contents(TEXT, PICTURES)).llm > count.forward(contents(TEXT, PICTURES)).llm


@pytest.mark.parametrize("modes", [(X, F, X), (X, X, A), (X, F, A)])
def test_a_tower_that_does_not_look_counts_nothing(model_type, modes):
    architecture, of_all = build_config(model_type), dict(zip(COMPONENTS, modes, strict=True))
    looking, stored = (FlopCount.of(architecture, of_all, RANK, looks=looks) for looks in (True, False))
    row = contents(TEXT, PICTURES, CLIP)
    assert looking.training(row).vision > 0
    assert stored.training(row) == looking.training(row)._replace(vision=0)


@pytest.mark.parametrize("modes", [(X, F, A), (F, F, F)])
def test_a_reference_goes_forward_too(model_type, modes):
    architecture, of_all = build_config(model_type), dict(zip(COMPONENTS, modes, strict=True))
    alone, compared = (FlopCount.of(architecture, of_all, RANK, compares=compares) for compares in (False, True))
    for row in (contents(TEXT, PICTURES, CLIP), contents(TEXT)):
        again = alone.forward(row)
        again = again if modes[0] == F else again._replace(vision=0)  # a frozen tower does not run again
        assert compared.training(row) == tuple(map(sum, zip(alone.training(row), again, strict=True)))


def test_two_answers_share_the_arithmetic_of_their_question(model_type):
    count = FlopCount.of(build_config(model_type), dict.fromkeys(COMPONENTS, X), RANK)

    def forward(*pieces: Piece) -> int:
        return count.forward(Contents(pieces=(pieces,), supervised=0, grids=())).llm

    question = forward(Piece(20))
    assert forward(Piece(20), Piece(5, 20), Piece(9, 20)) == forward(Piece(25)) + forward(Piece(29)) - question


def test_a_row_whose_samples_all_failed_counts_nothing(model_type):
    count = FlopCount.of(build_config(model_type), dict.fromkeys(COMPONENTS, F), RANK)
    assert count.training(Contents(pieces=(), supervised=0, grids=())) == (0, 0, 0)


def test_samples_of_a_row_do_not_see_each_other(model_type):
    count = FlopCount.of(build_config(model_type), dict.fromkeys(COMPONENTS, F), RANK)
    apart = [count.training(contents(sample)) for sample in (TEXT, PICTURES, CLIP)]
    assert count.training(contents(TEXT, PICTURES, CLIP)) == tuple(map(sum, zip(*apart, strict=True)))


def test_a_row_of_a_hundred_samples_is_counted_within_a_millisecond():
    """The count takes 0.04 ms."""
    count = FlopCount.of(build_config("qwen2_5_vl"), dict.fromkeys(COMPONENTS, F), RANK)
    row = contents(*[PICTURES] * 100)
    fastest = math.inf
    for _ in range(20):
        started = time.perf_counter()
        count.training(row)
        fastest = min(fastest, time.perf_counter() - started)
    assert fastest < 1e-3
