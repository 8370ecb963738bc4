"""Recomputing activations in the backward pass, for the vision tower and the language model separately."""

import torch
from transformers import PreTrainedModel


def use_checkpointing(model: PreTrainedModel, paths: list[str], reentrant: bool) -> None:
    """`model` is the bare one. ZeRO-3 with adapters needs the reentrant kind (DeepSpeed pull request 8130)."""
    for path in paths:
        part = model.get_submodule(path)
        part.gradient_checkpointing_enable({"use_reentrant": reentrant})
        if reentrant:
            _let_gradients_in(part)


def _let_gradients_in(part: PreTrainedModel) -> None:
    """Reentrant checkpoints drop the gradients of a block whose input needs none."""

    def require(module, arguments, keywords):
        arguments = tuple(x.requires_grad_() if _is_plain_float(x) else x for x in arguments)
        keywords = {key: x.requires_grad_() if _is_plain_float(x) else x for key, x in keywords.items()}
        return arguments, keywords

    blocks = part.blocks if hasattr(part, "blocks") else part.layers
    blocks[0].register_forward_pre_hook(require, with_kwargs=True)


def _is_plain_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.is_leaf
