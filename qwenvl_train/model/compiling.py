"""Compile each block of the vision tower and of the language model with torch.compile, for training only.

Blocks of one kind share their code, so that each kind is compiled once, for packed rows of any size. The compiler
distinguishes views from other tensors, so views are copied before blocks read them.
"""

import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from qwenvl_train.batch import Segments
from qwenvl_train.model.attention import set_attention
from qwenvl_train.model.checkpointing import blocks_of
from qwenvl_train.model.linear_attention import packed_states


def use_compiled_blocks(model: PreTrainedModel, paths: list[str]) -> None:
    """Compile the blocks at each path. `model` is the base model."""
    inside = model.config._attn_implementation
    outside = f"{inside}_outside"
    AttentionInterface.register(outside, _outside_the_graph(ALL_ATTENTION_FUNCTIONS[inside]))
    set_attention(model, outside)
    for module in model.modules():
        if hasattr(module, "packed_states"):
            module.packed_states = types.MethodType(_states_outside_the_graph, module)
    for path in paths:
        blocks = blocks_of(model.get_submodule(path))
        # Compile below the checkpoint. Otherwise the code that the backward pass runs again would not be compiled.
        compiled = torch.compile(type(blocks[0]).forward.__wrapped__, dynamic=True)
        for block in blocks:
            block.forward = types.MethodType(_forward_through(compiled), block)
        blocks[0].register_forward_pre_hook(lambda _, arguments: (_no_view(arguments[0]), *arguments[1:]))


class _Unseen:
    """A container for a value that compiled code only passes on.

    Before torch 2.12 the compiler reads the fields of a dataclass, and compiles again whenever they differ.
    """

    def __init__(self, value: Segments) -> None:
        self.value = value


def _forward_through(compiled: Callable) -> Callable:
    def forward(self, *args, **kwargs):
        if not self.training:  # in generation each token would bring other shapes and a cache
            return type(self).forward(self, *args, **kwargs)
        kwargs = {key: _Unseen(value) if isinstance(value, Segments) else value for key, value in kwargs.items()}
        if self.gradient_checkpointing:
            return self._gradient_checkpointing_func(partial(compiled, self, **kwargs), *args)
        return compiled(self, *args, **kwargs)

    return forward


def _outside_the_graph(attention: Callable) -> Callable:
    """Return `attention` as a function that is not compiled.

    Its operations differ between packed rows, and compilation would not make its kernel faster.
    """

    @torch.compiler.disable
    def outside(*arguments, **keywords) -> tuple[torch.Tensor, None]:
        keywords = {key: value.value if isinstance(value, _Unseen) else value for key, value in keywords.items()}
        output, _ = attention(*arguments, **keywords)
        # The kernel's output is the same kind of tensor for every row. An output joined from groups is not.
        return output if output.is_cuda and output.dtype != torch.float32 else _no_view(output), None

    return outside


@torch.compiler.disable
def _states_outside_the_graph(layer: torch.nn.Module, given: Any, segments: Any, cache: Any) -> torch.Tensor:
    """Compute the states of a Gated DeltaNet layer. Their operations differ between packed rows, too."""
    return _no_view(packed_states(layer, given, getattr(segments, "value", segments), cache))


def _no_view(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor._is_view() else tensor
