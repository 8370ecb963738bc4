"""The patch embedding as a matrix product, against the convolution that it is."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.patch_embed import use_linear_patches

WIDTH = 1280


def projections(model_type: str, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The patch embedding as transformers computes it, and as we do, in the published width."""
    theirs = build_model(model_type).get_submodule(FAMILIES[model_type].vision_path).patch_embed
    small = theirs.proj
    bias = small.bias is not None
    theirs.proj = torch.nn.Conv3d(small.in_channels, WIDTH, small.kernel_size, small.stride, bias=bias)
    theirs.embed_dim = WIDTH
    ours = copy.deepcopy(theirs.to(dtype))
    use_linear_patches(ours.proj)
    return theirs, ours


def patches(embedding: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, embedding.proj.weight[0].numel(), generator=generator)


def gradients(embedding: torch.nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    pixels = patches(embedding).requires_grad_()
    output = embedding(pixels)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (output.float() * weights).sum().backward()
    return output, {"pixels": pixels.grad} | {name: one.grad for name, one in embedding.named_parameters()}


# Measured worst cases over families, as shares of the largest value: 1.9e-6, and one rounding of bf16, 2.1e-3
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_output_and_gradients_equal_the_convolution(model_type, dtype, tolerance):
    theirs, ours = projections(model_type, dtype)
    expected, of_theirs = gradients(theirs)
    output, of_ours = gradients(ours)
    assert (output.dtype, output.shape) == (expected.dtype, expected.shape)
    pairs = {"output": (output, expected)} | {name: (of_ours[name], grad) for name, grad in of_theirs.items()}
    for name, (got, wanted) in pairs.items():
        assert got.shape == wanted.shape
        worst = ((got - wanted).abs().max() / wanted.abs().max()).item()
        assert worst < tolerance, f"{name}: {worst}"


def test_what_is_saved_stays_as_published(model_type):
    theirs, ours = projections(model_type)
    published, saved = theirs.state_dict(), ours.state_dict()
    assert {name: tensor.shape for name, tensor in saved.items()} == {
        name: tensor.shape for name, tensor in published.items()
    }
    assert saved["proj.weight"].ndim == 5
    theirs.load_state_dict(saved)


def test_hooks_on_the_convolution_are_called_and_see_its_shapes(model_type):
    seen = []
    for embedding in projections(model_type):
        embedding.proj.register_forward_hook(lambda _, given, made: seen.append((given[0].shape, made.shape)))
        embedding(patches(embedding))
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_a_copy_multiplies_with_its_own_weight(model_type):
    """PEFT trains a copy of what is saved in full, and keeps the original beside it."""
    _, ours = projections(model_type)
    holder = torch.nn.ModuleDict({"patch_embed": ours, "linear": torch.nn.Linear(1, 1)})
    get_peft_model(holder, LoraConfig(target_modules=["linear"], modules_to_save=["patch_embed"]))
    wrapper = holder["patch_embed"]
    trained = wrapper.modules_to_save["default"]
    wrapper(patches(ours)).sum().backward()
    assert trained.proj.weight.grad.abs().sum() > 0
    assert wrapper.original_module.proj.weight.grad is None
    with torch.no_grad():
        trained.proj.weight.zero_()
        without_bias = wrapper(patches(ours)) - (0 if trained.proj.bias is None else trained.proj.bias)
    assert without_bias.abs().max() == 0
