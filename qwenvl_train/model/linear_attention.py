"""The forward pass of Gated DeltaNet layers over a packed row.

A Gated DeltaNet layer carries two states from token to token: the last inputs of its causal convolution, and the matrix
of its recurrence (the gated delta rule). Both start anew in each stretch of a packed row, or as another stretch has
left them (`batch.Recurrence`). Handing the boundaries to the recurrence alone would let the convolution read the last
tokens of the stretch before.

With flash-linear-attention (fla) on CUDA in half precision, both are kernels that take the boundaries, called once for
each level of stretches. Elsewhere, transformers' own functions are called once for each group of equally long ones.
"""

import inspect
import sys
import types
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.utils import is_flash_linear_attention_available

from qwenvl_train.batch import CONVOLUTION_WIDTH, Recurrence, Segments
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.model.attention import arranged


class Kernels(NamedTuple):
    """The two functions of fla."""

    convolution: Callable
    recurrence: Callable


class _Inputs(NamedTuple):
    """What the states are computed from, for each token."""

    mixed: torch.Tensor
    """[tokens, width]: queries, keys and values before the convolution."""
    decay: torch.Tensor
    """[tokens, value heads]: logarithm of the factor by which the state shrinks."""
    beta: torch.Tensor
    """[tokens, value heads]: the share of the new value that is written to the state."""

    def arranged(self, order: torch.Tensor | None, back: torch.Tensor | None) -> "_Inputs":
        return _Inputs(*(arranged(x, 0, order, back) for x in self))

    def batch(self, start: int, rows: int, length: int) -> "_Inputs":
        """Return [rows, length, …] of the tokens from `start` on."""
        return _Inputs(*(x[start : start + rows * length].unflatten(0, (rows, length)) for x in self))


class _Starts(NamedTuple):
    """The states that some stretches start with."""

    tails: torch.Tensor
    """[stretches, CONVOLUTION_WIDTH, width]: the last inputs of the convolution."""
    matrices: torch.Tensor
    """[stretches, value heads, key width, value width]: the states of the recurrence."""


def use_packed_linear_attention(language_model: PreTrainedModel) -> None:
    """Replace the forward pass of the Gated DeltaNet layers, if the model has any. When called without Segments (while
    answers are generated), the original runs."""
    for block in language_model.layers:
        if hasattr(block, "linear_attn"):
            layer = block.linear_attn
            if layer.conv_kernel_size != CONVOLUTION_WIDTH:
                raise UserError(
                    f"The convolution of this model reads {layer.conv_kernel_size} tokens (linear_conv_kernel_dim); "
                    f"only {CONVOLUTION_WIDTH}, the published size, is supported."
                )
            layer.forward = types.MethodType(_forward, layer)
            layer.packed_states = types.MethodType(packed_states, layer)


def about_missing_kernels(family: Family) -> str | None:
    """Return a hint if a run on a GPU has Gated DeltaNet layers and no kernels for them."""
    if not family.linear_attention or not torch.cuda.is_available() or is_flash_linear_attention_available():
        return None
    return (
        f"flash-linear-attention is not installed: three of four layers of {family.name} run without its kernels, "
        "correctly but several times slower; install qwenvl-train[fla]"
    )


def _forward(
    self: Any,
    hidden_states: torch.Tensor,
    cache_params: Cache | None = None,
    attention_mask: torch.Tensor | None = None,
    cu_seq_lens_q: Segments | None = None,
    **options: Any,
) -> torch.Tensor:
    if cu_seq_lens_q is None:
        return type(self).forward(self, hidden_states, cache_params, attention_mask, **options)
    given = _Inputs(
        mixed=self.in_proj_qkv(hidden_states)[0],
        # In float16, the exponential could exceed the range.
        decay=(-self.A_log.float().exp() * F.softplus(self.in_proj_a(hidden_states).float() + self.dt_bias))[0],
        beta=self.in_proj_b(hidden_states).sigmoid()[0],
    )
    gate = self.in_proj_z(hidden_states)
    read = self.packed_states(given, cu_seq_lens_q, cache_params)
    normed = self.norm(read.reshape(-1, self.head_v_dim), gate.reshape(-1, self.head_v_dim))
    return self.out_proj(normed.reshape(gate.shape))


def packed_states(layer: Any, given: _Inputs, segments: Segments, collected: Cache | None) -> torch.Tensor:
    """Return what each token reads from the state, [T, value heads, value width]. With `collected`, the states at the
    end of each stretch become the states of this layer there."""
    recurrence = segments.recurrence
    assert recurrence is not None, "the packed row was made for a model without Gated DeltaNet layers"
    keeps = recurrence.continues or collected is not None
    tails = _last_inputs(given.mixed, recurrence) if keeps else None
    kernels = usable_kernels(given.mixed)
    if kernels is None:
        read, matrices = _in_groups(layer, given, recurrence, tails)
    else:
        read, matrices = _in_kernels(layer, given, recurrence, tails, kernels)
    if collected is not None:
        assert tails is not None
        collected.update_conv_state(tails.transpose(1, 2), layer.layer_idx, conv_kernel_size=CONVOLUTION_WIDTH)
        collected.update_recurrent_state(torch.stack(matrices), layer.layer_idx)
    return read


def usable_kernels(mixed: torch.Tensor) -> Kernels | None:
    """Return the functions of fla, if it is installed and supports the device and the dtype of the given tensor."""
    return _fla_kernels() if mixed.is_cuda and mixed.dtype != torch.float32 else None


@cache
def _fla_kernels() -> Kernels | None:
    if not is_flash_linear_attention_available():
        return None
    from fla.modules.causal_conv1d import causal_conv1d
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    return Kernels(causal_conv1d, chunk_gated_delta_rule)


def _last_inputs(mixed: torch.Tensor, recurrence: Recurrence) -> torch.Tensor:
    """Return the last inputs of the convolution up to the end of each stretch, [stretches, CONVOLUTION_WIDTH, width].
    They are zero before the first token of a sample."""
    places = recurrence.last_tokens
    found = mixed.index_select(0, places.clamp(min=0).flatten()).unflatten(0, places.shape)
    return found.masked_fill((places < 0)[..., None], 0)


def _starts(parents: tuple[int, ...], tails: torch.Tensor | None, matrices: dict[int, torch.Tensor]) -> _Starts | None:
    """Return the states that the stretches with these parents start with. None if they start with empty ones."""
    if not parents:
        return None
    assert tails is not None
    return _Starts(
        torch.stack([tails[parent] for parent in parents]), torch.stack([matrices[parent] for parent in parents])
    )


def _in_groups(
    layer: Any, given: _Inputs, recurrence: Recurrence, tails: torch.Tensor | None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Compute the states without kernels: one call for each group of stretches. Padding neither writes to the state nor
    lets it shrink. Return what the tokens read, and the last state of each stretch if `tails` are given."""
    order, inverse = recurrence.group_order, recurrence.inverse_group_order
    # A gradient of padding is dropped here: it is zero.
    padded = given.arranged(order, inverse)
    padded = padded._replace(
        decay=padded.decay.masked_fill(recurrence.padding[:, None], 0),
        beta=padded.beta.masked_fill(recurrence.padding[:, None], 0),
    )
    matrices: dict[int, torch.Tensor] = {}
    read, start = [], 0
    for group in recurrence.groups:
        part = padded.batch(start, len(group.stretches), group.length)
        starts = _starts(group.parents, tails, matrices)
        out, last = _computed_by_transformers(layer, part, starts, tails is not None)
        if last is not None:
            matrices.update(zip(group.stretches, last.unbind(), strict=True))
        read.append(out.flatten(0, 1))
        start += len(read[-1])
    joined = torch.cat(read) if len(read) > 1 else read[0]
    return joined.index_select(0, inverse), [matrices[number] for number in sorted(matrices)]


def _computed_by_transformers(
    layer: Any, given: _Inputs, starts: _Starts | None, keeps: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    functions = _plain_functions(type(layer).__module__)
    mixed, before = given.mixed, 0
    if starts is not None:
        before = CONVOLUTION_WIDTH - 1
        mixed = torch.cat([starts.tails[:, -before:], mixed], dim=1)
    weight = layer.conv1d.weight.squeeze(1)
    mixed = functions.convolution(mixed.transpose(1, 2), weight, layer.conv1d.bias, layer.activation).transpose(1, 2)
    # The function casts its arguments to float32 for its matrix products, which autocast would undo.
    with torch.autocast(mixed.device.type, enabled=False):
        return functions.recurrence(
            *_split(layer, mixed[:, before:]),
            g=given.decay,
            beta=given.beta,
            initial_state=None if starts is None else starts.matrices,
            output_final_state=keeps,
            use_qk_l2norm_in_kernel=True,
        )


@cache
def _plain_functions(module: str) -> Kernels:
    """Return the functions of a module of transformers that need no kernels. Those under their names there become
    fla's where it is installed."""
    there = vars(sys.modules[module])
    return Kernels(*(inspect.unwrap(there[name]) for name in ("causal_conv1d_fn", "torch_chunk_gated_delta_rule")))


def _in_kernels(
    layer: Any, given: _Inputs, recurrence: Recurrence, tails: torch.Tensor | None, kernels: Kernels
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Compute the states with kernels that take the boundaries of stretches: one call for each level. Return what the
    tokens read, and the last state of each stretch if `tails` are given."""
    order, inverse = recurrence.level_order, recurrence.inverse_level_order
    in_levels = given.arranged(order, inverse)
    weight = layer.conv1d.weight.squeeze(1)
    matrices: dict[int, torch.Tensor] = {}
    read, start = [], 0
    for level in recurrence.levels:
        mixed, decay, beta = in_levels.batch(start, 1, level.tokens)
        starts = _starts(level.parents, tails, matrices)
        borders = {"cu_seqlens": level.cu_seqlens, "chunk_indices": level.chunk_indices}
        mixed, _ = kernels.convolution(
            mixed,
            weight,
            layer.conv1d.bias,
            initial_state=None if starts is None else starts.tails.transpose(1, 2).contiguous(),
            activation=layer.activation,
            **borders,
        )
        out, last = kernels.recurrence(
            *_split(layer, mixed),
            g=decay,
            beta=beta,
            initial_state=None if starts is None else starts.matrices,
            output_final_state=tails is not None,
            use_qk_l2norm_in_kernel=True,
            **borders,
        )
        if tails is not None:
            matrices.update(zip(level.stretches, last.unbind(), strict=True))
        read.append(out[0])
        start += level.tokens
    joined = torch.cat(read) if len(read) > 1 else read[0]
    return arranged(joined, 0, inverse, order), [matrices[number] for number in sorted(matrices)]


def _split(layer: Any, mixed: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return queries, keys and values, each [batch, tokens, heads, width]."""
    query, key, value = mixed.split([layer.key_dim, layer.key_dim, layer.value_dim], dim=-1)
    of_keys, of_values = (-1, layer.head_k_dim), (-1, layer.head_v_dim)
    return query.unflatten(-1, of_keys), key.unflatten(-1, of_keys), value.unflatten(-1, of_values)
