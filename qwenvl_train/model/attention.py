"""One attention function for decoder and vision windows: samples lie end to end and cu_seqlens tells them apart."""

from collections import defaultdict
from itertools import pairwise

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

# The vision towers hand over cu_seqlens only to an attention whose name contains "flash". Having registered no
# mask function under this name, transformers builds no mask either.
NAME = "qwenvl_flash_varlen"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """q [1, heads, T, d], k and v [1, kv_heads, T, d] to [1, T, heads, d]; no token sees another sample."""
    causal = module.is_causal if is_causal is None else is_causal
    query, key = query.to(value.dtype), key.to(value.dtype)
    output = torch.empty_like(query)
    for length, rows in _by_length(cu_seq_lens_q).items():
        # Samples of one length share a call.
        take = (rows[:, None] + torch.arange(length)).flatten().to(query.device)
        q, k, v = (_as_batch(x, take, len(rows)) for x in (query, key, value))
        part = F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=causal, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        output[:, :, take] = part.transpose(0, 1).flatten(1, 2)[None]
    return output.transpose(1, 2), None


def use_packed_attention(model: PreTrainedModel) -> None:
    AttentionInterface.register(NAME, packed_attention)
    set_attention(model, NAME)


def set_attention(model: PreTrainedModel, name: str) -> None:
    """On the configs of this model alone; transformers' own setter would go looking for a kernel of that name."""
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config._attn_implementation = name


def _by_length(cu_seqlens: torch.Tensor) -> dict[int, torch.Tensor]:
    bounds = cu_seqlens.tolist()
    starts = defaultdict(list)
    for start, end in pairwise(bounds):
        if end > start:
            starts[end - start].append(start)
    return {length: torch.tensor(places) for length, places in starts.items()}


def _as_batch(x: torch.Tensor, take: torch.Tensor, rows: int) -> torch.Tensor:
    """[1, h, T, d] to [rows, h, length, d]."""
    return x[0].index_select(1, take).unflatten(1, (rows, -1)).transpose(0, 1)
