"""Activation checkpointing changes no gradient, and recomputes only the blocks that the setting names."""

import pytest
import torch

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.checkpointing import blocks_of, use_checkpointing
from qwenvl_train.model.components import COMPONENTS
from qwenvl_train.model.forward import use_packed_forward
from qwenvl_train.model.trainable import select_trained
from tests.conftest import in_rotation
from tests.settings import run_config

FULL = {f"tune_mm_{component}": True for component in COMPONENTS}
ADAPTERS = FULL | {f"lora.{component}": True for component in COMPONENTS}
BEHIND_A_FROZEN_TOWER = {"tune_mm_llm": True, "lora.llm": True}


class Run:
    """One forward and backward pass of a new model. It is the same for the same settings."""

    def __init__(self, model_type: str, config: RunConfig, processor, batch, where=(), every=1, reentrant=False):
        family = FAMILIES[model_type]
        paths = {"vision": family.vision_path, "llm": family.language_path}
        model = build_model(model_type)
        use_packed_forward(model, processor.image_processor)
        use_packed_attention(model)
        use_checkpointing(model, [paths[part] for part in where], every, reentrant)
        self.calls = {part: [0] * len(blocks_of(model.get_submodule(path))) for part, path in paths.items()}
        for part, path in paths.items():
            for index, block in enumerate(blocks_of(model.get_submodule(path))):
                _count_calls(next(block.children()), self.calls[part], index)
        torch.manual_seed(0)
        adapted = select_trained(model, family, config).train()
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:  # B starts at 0 and would leave A without a gradient
                torch.nn.init.normal_(parameter, std=0.1)
        (-adapted(**batch).log_probs.sum()).backward()
        self.gradients = {name: one.grad for name, one in adapted.named_parameters() if one.grad is not None}


def _count_calls(module: torch.nn.Module, counts: list[int], index: int) -> None:
    """Count the calls of the first module in a block, since the hooks of the block itself are not called again on
    recomputation."""

    def count(*_: object) -> None:
        counts[index] += 1

    module.register_forward_pre_hook(count)


WAYS = {
    f"{name}{' reentrant' * reentrant}": (tuned, reentrant)
    for name, tuned in {"full": FULL, "lora": ADAPTERS, "frozen tower": BEHIND_A_FROZEN_TOWER}.items()
    for reentrant in (False, True)
}


@pytest.mark.parametrize(("model_type", "way"), in_rotation(WAYS))
def test_gradients_are_the_same_bit_for_bit(model_type, way, batches):
    tuned, reentrant = WAYS[way]
    dropout = 0.0 if FAMILIES[model_type].expert_weights else 0.1
    config = run_config(**tuned, **{"lora.dropout": dropout})
    plain = Run(model_type, config, *batches(model_type)).gradients
    assert plain
    for where, every in ((["vision"], 1), (["llm"], 2), (["vision", "llm"], 1), (["vision", "llm"], 2)):
        if not config.tune_mm_vision and "vision" in where:
            continue
        saving = Run(model_type, config, *batches(model_type), where, every, reentrant).gradients
        assert saving.keys() == plain.keys()
        for name, gradient in plain.items():
            assert torch.equal(saving[name], gradient), (where, every, name)


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("where", [[], ["vision"], ["llm"], ["vision", "llm"]], ids="+".join)
def test_every_so_many_th_block_is_run_again_and_no_other(model_type, where, every, batches):
    calls = Run(model_type, run_config(**FULL), *batches(model_type), where, every).calls
    for part, counts in calls.items():
        again = [2 if part in where and index % every == 0 else 1 for index in range(len(counts))]
        assert counts == again, part
