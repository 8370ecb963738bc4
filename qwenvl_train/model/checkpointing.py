"""Gradient checkpointing (recomputing activations in the backward pass) of the vision tower or the language model."""

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
    """Return the components whose blocks the backward pass computes again.

    A vision tower that gets no gradients is left out, because it keeps no activations.
    """
    parts = _PARTS[config.train.checkpointing]
    return tuple(part for part in parts if part != "vision" or config.tune_mm_vision)


def use_checkpointing(model: PreTrainedModel, paths: list[str], every: int, reentrant: bool) -> None:
    """Checkpoint the first block at each path, and every `every`-th block after it. `model` is the base model.

    ZeRO-3 with adapters needs reentrant checkpoints (DeepSpeed pull request 8130).
    """
    for path in paths:
        part = model.get_submodule(path)
        # The public method would also warn that some towers have no input embeddings, which nothing here needs.
        part._set_gradient_checkpointing(
            gradient_checkpointing_func=partial(checkpoint, use_reentrant=reentrant), every_n_layers=every
        )
        if reentrant:
            _let_gradients_in(part)


def blocks_of(part: PreTrainedModel) -> torch.nn.ModuleList:
    """Return the blocks of a vision tower or of a language model."""
    return part.blocks if hasattr(part, "blocks") else part.layers


def _let_gradients_in(part: PreTrainedModel) -> None:
    """Make the input of the first block require a gradient.

    Reentrant checkpoints drop the gradients of a block whose input requires none.
    """

    def require(module, arguments, keywords):
        arguments = tuple(x.requires_grad_() if _is_plain_float(x) else x for x in arguments)
        keywords = {key: x.requires_grad_() if _is_plain_float(x) else x for key, x in keywords.items()}
        return arguments, keywords

    blocks_of(part)[0].register_forward_pre_hook(require, with_kwargs=True)


def _is_plain_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.is_leaf
