"""Liger's kernels, each in place of several small ones: the norms, gates and rotations of one model.

They replace what instances compute, below their `__call__`, on which adapters and sharded weights hang their hooks.
Liger's own patches change classes and the loss, and for Qwen2-VL and Qwen2.5-VL a rotation that transformers no longer
calls. Imported only where a run asks for it, since liger-kernel is optional.
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
    """`model` is the bare one."""
    for module in model.modules():
        if (fused := _fused(module)) is not None:
            name, function = fused
            setattr(module, name, types.MethodType(function, module))


def told(model: PreTrainedModel, family: Family) -> str:
    """One line on what runs on Liger's kernels and what does not, as it is found in the bare model."""
    vision, language = model.get_submodule(family.vision_path), model.get_submodule(family.language_path)
    return f"Liger's kernels: vision {_told(vision)}; llm {_told(language)}"


def _told(part: torch.nn.Module) -> str:
    """PEFT keeps a copy beside what it trains in full, which is not counted."""
    modules = [module for name, module in part.named_modules() if "original_module" not in name.split(".")]
    there = Counter(kind for module in modules if (kind := _kind(module)))
    runs = Counter(kind for module in modules if (kind := _kind(module)) and _is_fused(module))
    return ", ".join(_count(kind, runs[kind], there[kind]) for kind in (_NORM, _GATE, _ROTATION))


def _count(kind: str, runs: int, there: int) -> str:
    if not there:
        return f"no {kind}"
    return f"{runs if runs == there else f'{runs} of {there}'} {kind}{'s' if there > 1 else ''}"


def _kind(module: torch.nn.Module) -> str | None:
    """LayerNorms are none of these: torch has a kernel for them."""
    if type(module).__name__.endswith("RMSNorm"):
        return _NORM
    if isinstance(module._modules.get("act_fn"), SiLUActivation):  # PEFT's wrappers show what they wrap as theirs
        return _GATE
    return _ROTATION if type(module).__name__.endswith("Attention") else None


def _fused(module: torch.nn.Module) -> tuple[str, Callable] | None:
    """Which method of it is to be replaced, and by what."""
    match _kind(module):
        case "RMSNorm":
            return "forward", _norm
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
    """Casts as Qwen's do, which Liger calls "llama": the mean in float32, the weight in the states' precision. Not in
    place, where the backward pass would write over a gradient that others may still read."""
    return LigerRMSNormFunction.apply(states, self.weight, self.variance_epsilon, 0.0, "llama", False, None)


def _gated(self: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """The backward pass writes over both projections' outputs, which nothing else keeps."""
    return self.down_proj(LigerSiLUMulFunction.apply(self.gate_proj(states), self.up_proj(states)))


def _gate(self: torch.nn.Module, both: torch.Tensor) -> torch.Tensor:
    """Of experts, whose two projections are one."""
    return LigerFusedGateUpSiLUMulFunction.apply(both)


def _rotate(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, heads, T, width], in place where these are a projection's or a norm's output. The angles come with the three
    kinds of positions already put together, interleaved or not."""
    return LigerRopeFunction.apply(query, key, cos, sin)


def _rotate_in_tower(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """[P, heads, width]; computed in float32, as the angles are."""
    turned = LigerRopeFunction.apply(
        query.transpose(0, 1)[None], key.transpose(0, 1)[None], cos[None].float(), sin[None].float()
    )
    return turned[0][0].transpose(0, 1), turned[1][0].transpose(0, 1)


_ROTATIONS = {"apply_rotary_pos_emb": _rotate, "apply_rotary_pos_emb_vision": _rotate_in_tower}
"""By the names under which attention calls them."""


@cache
def _with_rotations(forward: types.FunctionType) -> types.FunctionType:
    """The same code, finding Liger's under those names; its module stays as it is for other models."""
    names = forward.__globals__ | _ROTATIONS
    return types.FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
