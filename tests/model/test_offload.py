"""Activation offloading is refused without a GPU, and changes no gradient with one."""

import pytest
import torch
from transformers import AutoProcessor
from trl.models import get_act_offloading_ctx_manager

from qwenvl_train.data.batches.collate import collate
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.build import refuse_what_needs_a_gpu
from qwenvl_train.model.checkpointing import use_checkpointing
from qwenvl_train.model.forward import use_packed_forward
from tests.conftest import conversation, sample_of
from tests.loading import renderer_of
from tests.settings import run_config


@pytest.mark.parametrize("cuda", [False, True])
def test_offloading_needs_a_gpu(cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    refuse_what_needs_a_gpu(run_config())
    config = run_config(**{"train.offload_activations": True})
    if cuda:
        refuse_what_needs_a_gpu(config)
    else:
        with pytest.raises(UserError, match=r"train\.offload_activations=true .* set it to false"):
            refuse_what_needs_a_gpu(config)


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_the_same_and_less_is_kept(model_type, checkpointing, checkpoints, pictures):
    family, processor = FAMILIES[model_type], AutoProcessor.from_pretrained(checkpoints[model_type])
    renderer = renderer_of(processor, checkpoints[model_type])
    row = conversation(("user", [pictures[3], "What?"]), ("assistant", ["A red circle on the left."]))
    batch = collate([renderer.render(sample_of(row))] * 8, renderer)
    moved = {
        key: {name: _moved(one) for name, one in value.items()} if isinstance(value, dict) else _moved(value)
        for key, value in batch.items()
    }
    model = build_model(model_type)
    use_packed_forward(model, processor.image_processor)
    use_packed_attention(model)
    if checkpointing:
        use_checkpointing(model, [family.vision_path, family.language_path], every=1, reentrant=False)
    model.to("cuda").train()

    def step() -> tuple[list[torch.Tensor], int]:
        model.zero_grad()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        loss = -model(**moved).log_probs.sum()
        torch.cuda.synchronize()
        kept = torch.cuda.memory_allocated() - before
        loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()], kept

    step()  # sets up what is created only once
    plain, kept = step()
    # Attention sums its gradients in no fixed order, so that two identical passes differ as well.
    noise = [(one - other).norm() for one, other in zip(plain, step()[0], strict=True)]
    with get_act_offloading_ctx_manager(model):
        offloaded, kept_then = step()
    assert kept_then < kept
    for one, other, between_two in zip(plain, offloaded, noise, strict=True):
        assert (one - other).norm() <= 4 * between_two + 1e-6 * one.norm() + 1e-7


def _moved(value):
    return value.to("cuda") if hasattr(value, "to") else value
