"""Recomputing activations in the backward pass, for the vision tower and the language model separately."""

from functools import partial

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from qwenvl_train.config.schema import Component, RunConfig

_PARTS: dict[str, tuple[Component, ...]] = {
    "none": (),
    "vision": ("vision",),
    "llm": ("llm",),
    "all": ("vision", "llm"),
}


def recomputed_parts(config: RunConfig) -> tuple[Component, ...]:
    """A tower that gets no gradients keeps no activations either, and has nothing to recompute."""
    parts = _PARTS[config.train.checkpointing]
    return tuple(part for part in parts if part != "vision" or config.tune_mm_vision)


def use_checkpointing(model: PreTrainedModel, paths: list[str], every: int, reentrant: bool) -> None:
    """Of the blocks at each path, the first and every `every`-th after it; `model` is the bare one.

    ZeRO-3 with adapters needs the reentrant kind (DeepSpeed pull request 8130).
    """
    for path in paths:
        part = model.get_submodule(path)
        # The public method would also warn that some towers show no input embeddings, which nothing here asks for.
        part._set_gradient_checkpointing(
            gradient_checkpointing_func=partial(checkpoint, use_reentrant=reentrant), every_n_layers=every
        )
        if reentrant:
            _let_gradients_in(part)


def blocks_of(part: PreTrainedModel) -> torch.nn.ModuleList:
    """The layers of a vision tower or of a language model."""
    return part.blocks if hasattr(part, "blocks") else part.layers


def _let_gradients_in(part: PreTrainedModel) -> None:
    """Reentrant checkpoints drop the gradients of a block whose input needs none."""

    def require(module, arguments, keywords):
        arguments = tuple(x.requires_grad_() if _is_plain_float(x) else x for x in arguments)
        keywords = {key: x.requires_grad_() if _is_plain_float(x) else x for key, x in keywords.items()}
        return arguments, keywords

    blocks_of(part)[0].register_forward_pre_hook(require, with_kwargs=True)


def _is_plain_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.is_leaf
