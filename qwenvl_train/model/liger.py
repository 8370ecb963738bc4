"""Use Liger's fused kernels, each of which replaces several small ones, in the norms, gates and rotations of one model.

They replace methods of module instances. `__call__` stays, because adapters and sharded weights register hooks on it.
Liger's own patches change classes and the loss, and for Qwen2-VL and Qwen2.5-VL a rotation that transformers no longer
calls. This module is imported only if a run asks for it, since liger-kernel is optional.
"""

import types
from collections import Counter
from collections.abc import Callable
from functools import cache

import torch
from liger_kernel.ops import (
    LigerFusedGateUpSiLUMulFunction,
    LigerRMSNormFunction,
    LigerRopeFunction,
    LigerSiLUMulFunction,
)
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation

from qwenvl_train.families.family import Family

_NORM, _GATE, _ROTATION = "RMSNorm", "SwiGLU", "rotary embedding"


def use_liger(model: PreTrainedModel) -> None:
    """Use Liger's kernels in `model`, the base model."""
    for module in model.modules():
        if (fused := _fused(module)) is not None:
            name, function = fused
            setattr(module, name, types.MethodType(function, module))


def summary(model: PreTrainedModel, family: Family) -> str:
    """Return one line that reports which modules of the base model run on Liger's kernels and which do not."""
    vision, language = model.get_submodule(family.vision_path), model.get_submodule(family.language_path)
    return f"Liger's kernels: vision {_counts(vision)}; llm {_counts(language)}"


def _counts(part: torch.nn.Module) -> str:
    """Return the counts for one part of the model, without the copies that PEFT keeps of modules trained in full."""
    modules = [module for name, module in part.named_modules() if "original_module" not in name.split(".")]
    there = Counter(kind for module in modules if (kind := _kind(module)))
    runs = Counter(kind for module in modules if (kind := _kind(module)) and _is_fused(module))
    return ", ".join(_count(kind, runs[kind], there[kind]) for kind in (_NORM, _GATE, _ROTATION))


def _count(kind: str, runs: int, there: int) -> str:
    if not there:
        return f"no {kind}"
    return f"{runs if runs == there else f'{runs} of {there}'} {kind}{'s' if there > 1 else ''}"


def _kind(module: torch.nn.Module) -> str | None:
    """Return the kind of a module, or None. LayerNorms have no kind, because torch has a kernel for them."""
    if type(module).__name__.endswith("RMSNorm"):
        return _NORM
    if isinstance(module._modules.get("act_fn"), SiLUActivation):  # hasattr also holds for PEFT's wrappers
        return _GATE
    return _ROTATION if type(module).__name__.endswith("Attention") else None


def _fused(module: torch.nn.Module) -> tuple[str, Callable] | None:
    """Return the name of the method to replace and its replacement, or None."""
    match _kind(module):
        case "RMSNorm":
            return "forward", _norm if hasattr(module, "variance_epsilon") else _zero_centered_norm
        case "SwiGLU" if hasattr(module, "gate_proj"):
            return "forward", _gated
        case "SwiGLU" if getattr(module, "is_concatenated", False) and module.config._experts_implementation != "eager":
            return "_apply_gate", _gate
        case "rotary embedding" if _ROTATIONS.keys() & set(type(module).forward.__code__.co_names):
            return "forward", _with_rotations(type(module).forward)
    return None


def _is_fused(module: torch.nn.Module) -> bool:
    fused = _fused(module)
    return fused is not None and getattr(vars(module).get(fused[0]), "__func__", None) is fused[1]


def _norm(self: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Compute an RMSNorm with the casts of Qwen's: the mean in float32, the weight in the precision of the states.

    Liger calls these casts "llama". The backward pass is not in place, because it would write over a gradient that
    other operations may still read.
    """
    return LigerRMSNormFunction.apply(states, self.weight, self.variance_epsilon, 0.0, "llama", False, None)


def _zero_centered_norm(self: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Compute an RMSNorm of Qwen3.5, whose weight is added to 1 and applied in float32, as Liger's casts "gemma"."""
    return LigerRMSNormFunction.apply(states, self.weight, self.eps, 1.0, "gemma", False, None)


def _gated(self: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Compute a SwiGLU layer. The backward pass overwrites the outputs of its projections, which nothing else keeps."""
    return self.down_proj(LigerSiLUMulFunction.apply(self.gate_proj(states), self.up_proj(states)))


def _gate(self: torch.nn.Module, both: torch.Tensor) -> torch.Tensor:
    """Compute the SwiGLU gate of experts, whose gate and up projections are one."""
    return LigerFusedGateUpSiLUMulFunction.apply(both)


def _rotate(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys [B, heads, T, width], in place if they are the output of a projection or a norm.

    `cos` and `sin` already combine the three kinds of positions, interleaved or not. They may be for the first part of
    each head alone.
    """
    width = cos.shape[-1]
    if width == query.shape[-1]:
        return LigerRopeFunction.apply(query, key, cos, sin)
    turned = LigerRopeFunction.apply(query[..., :width].contiguous(), key[..., :width].contiguous(), cos, sin)
    return torch.cat([turned[0], query[..., width:]], dim=-1), torch.cat([turned[1], key[..., width:]], dim=-1)


def _rotate_in_tower(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys [P, heads, width] of the vision tower in float32, the precision of the angles."""
    turned = LigerRopeFunction.apply(
        query.transpose(0, 1)[None], key.transpose(0, 1)[None], cos[None].float(), sin[None].float()
    )
    return turned[0][0].transpose(0, 1), turned[1][0].transpose(0, 1)


_ROTATIONS = {"apply_rotary_pos_emb": _rotate, "apply_rotary_pos_emb_vision": _rotate_in_tower}
"""The replacements, by the names under which attention calls the original functions."""


@cache
def _with_rotations(forward: types.FunctionType) -> types.FunctionType:
    """Return a copy of `forward` that calls Liger's rotations. Other models still use the unchanged original."""
    names = forward.__globals__ | _ROTATIONS
    return types.FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
