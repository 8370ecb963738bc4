"""The patch embedding as a matrix product equals the convolution."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.patch_embed import use_linear_patches

WIDTH = 1280


def projections(model_type: str, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return the patch embedding of transformers and that of the project, with published widths."""
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


def output_and_gradients(embedding: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Compute them for pixels and an upstream gradient that are rounded to `dtype`, in the dtype of the module."""
    computed_in = embedding.proj.weight.dtype
    pixels = patches(embedding).to(dtype).to(computed_in).requires_grad_()
    output = embedding(pixels)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    output.backward(upstream.to(dtype).to(computed_in))
    return {"output": output, "pixels": pixels.grad} | {
        name: parameter.grad for name, parameter in embedding.named_parameters()
    }


def error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest difference as a fraction of the largest value."""
    return ((got.double() - exact).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_and_gradients_equal_the_convolution(model_type, dtype):
    """Both are compared with float64, since the error of the convolution depends on the CPU.

    Measured worst cases over families and instruction sets (AVX2, AVX-512, AMX): 1.6 times the convolution's error in
    float32 (6.0e-7), and 1.0 times in bfloat16 (3.2e-3, less than half a unit in the last place).
    """
    theirs, ours = projections(model_type, dtype)
    exact = output_and_gradients(copy.deepcopy(theirs).double(), dtype)
    expected, got = output_and_gradients(theirs, dtype), output_and_gradients(ours, dtype)
    for name, wanted in exact.items():
        assert (got[name].dtype, got[name].shape) == (expected[name].dtype, expected[name].shape)
        allowed = max(4 * error(expected[name], wanted), torch.finfo(dtype).eps)
        assert error(got[name], wanted) < allowed, f"{name}: {error(got[name], wanted)}"


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
    """PEFT trains a copy of modules that it saves in full, and keeps the original next to the copy."""
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
