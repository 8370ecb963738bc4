"""Experts that are trained in float32, under autocast: computed in its type, as linear layers are."""

import copy

import pytest
import torch

from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.experts import use_experts_in_autocast_type

FAMILY = FAMILIES["qwen3_vl_moe"]


@pytest.fixture
def experts() -> torch.nn.Module:
    model = build_model("qwen3_vl_moe")
    use_experts_in_autocast_type(model, FAMILY)
    return model.get_submodule(FAMILY.language_path).layers[0].mlp.experts


def outputs_and_gradients(experts: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(24, experts.hidden_dim, generator=generator).to(dtype).requires_grad_()
    chosen = torch.stack([torch.randperm(experts.num_experts, generator=generator)[:2] for _ in range(24)])
    output = experts(states, chosen, torch.full((24, 2), 0.5, dtype=dtype))
    output.float().square().sum().backward()
    return {"output": output, "states": states.grad} | {
        name: parameter.grad for name, parameter in experts.named_parameters()
    }


def test_under_autocast_they_compute_as_weights_of_its_type_do(experts):
    half = copy.deepcopy(experts).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = outputs_and_gradients(experts, torch.bfloat16)
    wanted = outputs_and_gradients(half, torch.bfloat16)
    assert got.keys() == wanted.keys()
    for name, tensor in got.items():
        assert tensor.dtype == (torch.float32 if name in dict(experts.named_parameters()) else torch.bfloat16)
        assert torch.equal(tensor.float(), wanted[name].float()), name


def test_no_product_is_in_float32_under_autocast(experts, monkeypatch):
    types = []
    product = torch.nn.functional.grouped_mm

    def watched(states, weight, **keywords):
        types.append((states.dtype, weight.dtype))
        return product(states, weight, **keywords)

    monkeypatch.setattr(torch.nn.functional, "grouped_mm", watched)
    with torch.autocast("cpu", torch.bfloat16):
        outputs_and_gradients(experts, torch.float32)
    assert set(types) == {(torch.bfloat16, torch.bfloat16)}


def test_without_autocast_nothing_changes(experts):
    plain = copy.deepcopy(experts)
    del plain.forward
    got, wanted = outputs_and_gradients(experts, torch.float32), outputs_and_gradients(plain, torch.float32)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert {name for name, _ in experts.named_parameters()} == {name for name, _ in plain.named_parameters()}
