"""One attention function for the language model and the vision tower.

The pieces of a packed row lie end to end, and Segments say where each piece begins.
"""

import inspect
from functools import cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_flash_attention_utils import _flash_attention_forward
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_flash_attn_4_available

from qwenvl_train.batch import Segments
from qwenvl_train.config.schema import Kernel
from qwenvl_train.errors import UserError

_INSTALLED = {
    "flash_attention_2": is_flash_attn_2_available,
    "flash_attention_3": is_flash_attn_3_available,
    "flash_attention_4": is_flash_attn_4_available,
}


# Before torch 2.12 the kernel has no argument `enable_gqa`, and accepts fewer heads of keys and values without it.
_TELLS_GROUPED_HEADS = "enable_gqa" in inspect.signature(varlen_attn).parameters


class _Options(NamedTuple):
    scale: float | None
    causal: bool
    dropout: float


# transformers prescribes this signature, except for `kernel`.
def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: Segments,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    kernel: Kernel = "auto",
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Compute attention in which no token attends to another piece, except for the context of its own piece.

    `query` is [1, heads, T, d], `key` and `value` are [1, kv_heads, T, d], and the output is [1, T, heads, d].
    """
    options = _Options(scaling, module.is_causal if is_causal is None else is_causal, dropout)
    query, key = query.to(value.dtype), key.to(value.dtype)
    one = kernel == "auto" and value.dtype != torch.float32 and not dropout and _has_kernel(value.device)
    if kernel not in _INSTALLED and not one:
        return _in_groups(query, key, value, cu_seq_lens_q, options), None
    visible = cu_seq_lens_q.visible
    if visible is not None:
        key, value = (x.index_select(2, visible.positions) for x in (key, value))
    if one:
        return _in_one_kernel(query, key, value, cu_seq_lens_q, options), None
    return _in_users_kernel(query, key, value, cu_seq_lens_q, options, kernel), None


def use_packed_attention(model: PreTrainedModel, kernel: Kernel = "auto") -> None:
    # Vision towers pass the starts of pieces only to an attention function whose name contains "flash". Because no
    # mask function is registered under this name, transformers builds no mask.
    name = f"qwenvl_flash_{kernel}"
    AttentionInterface.register(name, partial(packed_attention, kernel=kernel))
    set_attention(model, name)


def refuse_kernel(kernel: Kernel, precision: str) -> None:
    if kernel not in _INSTALLED:
        return
    way_out = "use train.attention=auto"
    if not torch.cuda.is_available():
        raise UserError(f"train.attention={kernel} needs a GPU; {way_out}.")
    if precision == "fp32":
        raise UserError(f"train.attention={kernel} supports only 16 bits, but train.precision is fp32; {way_out}.")
    if not _INSTALLED[kernel]():
        raise UserError(f"train.attention={kernel} needs flash-attn of that version; install it, or {way_out}.")


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Set the attention function in the configs of `model`.

    The setter in transformers is not used, because it would search for a kernel of that name.
    """
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config._attn_implementation = name


@cache
def _has_kernel(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _in_one_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pieces: Segments, options: _Options
) -> torch.Tensor:
    """Compute attention with torch's own flash kernel for pieces of any length.

    In causal attention the last token of a piece attends to all tokens that the piece attends to.
    """
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    visible = pieces.visible or pieces
    window = (-1, 0) if options.causal else (-1, -1)
    grouped = {"enable_gqa": q.shape[1] != k.shape[1]} if _TELLS_GROUPED_HEADS else {}
    # On newer GPUs torch would prefer cuDNN, which makes a new plan for each number and length of pieces.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        output = varlen_attn(
            q, k, v, pieces.cu_seqlens, visible.cu_seqlens, pieces.longest, visible.longest,
            scale=options.scale, window_size=window, **grouped,
        )  # fmt: skip
    assert isinstance(output, torch.Tensor)
    return output[None]


def _in_users_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pieces: Segments, options: _Options, kernel: Kernel
) -> torch.Tensor:
    """Compute attention with the flash-attn that the user has installed, called as transformers calls it."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    visible = pieces.visible or pieces
    return _flash_attention_forward(
        q, k, v, None,
        query_length=q.shape[1], is_causal=options.causal, dropout=options.dropout, softmax_scale=options.scale,
        attn_implementation=kernel, cu_seq_lens_q=pieces.cu_seqlens, cu_seq_lens_k=visible.cu_seqlens,
        max_length_q=pieces.longest, max_length_k=visible.longest,
    )  # fmt: skip


def _in_groups(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pieces: Segments, options: _Options
) -> torch.Tensor:
    """Compute attention without a kernel for pieces of any length: one call for each group of equal pieces."""
    q = arranged(query[0], 1, pieces.order, pieces.inverse_order)
    if pieces.visible is None:
        k, v = (arranged(x[0], 1, pieces.order, pieces.inverse_order) for x in (key, value))
    else:
        k, v = (x[0].index_select(1, pieces.visible.grouped_positions) for x in (key, value))
    parts, start, seen_start = [], 0, 0
    for length, seen, count in pieces.groups:
        taken, visible = slice(start, start + length * count), slice(seen_start, seen_start + seen * count)
        part = F.scaled_dot_product_attention(
            q[:, taken].unflatten(1, (count, length)).transpose(0, 1),
            *(x[:, visible].unflatten(1, (count, seen)).transpose(0, 1) for x in (k, v)),
            attn_mask=_after_context(length, seen, q.device) if seen > length else None,
            dropout_p=options.dropout,
            is_causal=options.causal and seen == length,
            scale=options.scale,
            enable_gqa=q.shape[0] != k.shape[0],
        )
        parts.append(part.transpose(1, 2).flatten(0, 1))
        start, seen_start = taken.stop, visible.stop
    return arranged(torch.cat(parts) if len(parts) > 1 else parts[0], 0, pieces.inverse_order, pieces.order)[None]


def _after_context(length: int, seen: int, device: torch.device) -> torch.Tensor:
    """Return a mask [length, seen] in which each token attends to the context, and to the piece up to itself."""
    return torch.ones(length, seen, dtype=torch.bool, device=device).tril(seen - length)


def arranged(x: torch.Tensor, dim: int, order: torch.Tensor | None, back: torch.Tensor | None) -> torch.Tensor:
    """Return `x` in another order along a dimension. `back` has the place of each of its entries in that order. None
    stands for the same order."""
    return x if order is None else _Arranged.apply(x, dim, order, back)


class _Arranged(torch.autograd.Function):
    """The reordering of a tensor along one dimension.

    The backward pass selects the gradient in the inverse order, whereas that of index_select would add it up.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, dim: int, order: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.dim, ctx.back = dim, back
        return x.index_select(dim, order)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return gradient.index_select(ctx.dim, ctx.back), None, None, None
