"""The batch that the data pipeline passes to the model: one packed row of samples, end to end and without padding.

Everything that follows from sizes alone is computed where packed rows are made, so that a training step never has to
wait for the device to return a number.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypedDict

import torch


class Piece(NamedTuple):
    """Consecutive tokens of a sample. Each token attends to the earlier tokens of its piece and to the context."""

    length: int
    context: int = 0
    """Number of tokens at the beginning of the sample that the piece also attends to: the question that the two
    answers of a preference pair share."""


@dataclass(frozen=True)
class VisibleContext:
    """The tokens that each piece of a packed row attends to, in rows where some pieces have a context.

    K is the number of tokens that a piece attends to (its context and itself), summed over all pieces.
    """

    cu_seqlens: torch.Tensor
    """[pieces + 1] int32: where the part of each piece starts in `positions`, and the end of the last part."""
    longest: int
    """Largest number of tokens that one piece attends to."""
    positions: torch.Tensor
    """[K] int64: positions in the packed row of the tokens that the first piece attends to, then the second piece, …"""
    grouped_positions: torch.Tensor
    """[K] int64: the values of `positions`, with the pieces in the order of `Segments.groups`."""


CONVOLUTION_WIDTH = 4
"""Number of tokens that the convolution of a Gated DeltaNet layer reads, the current one included."""
CHUNK = 64
"""Number of tokens that the chunked gated delta rule takes at a time."""


class StateGroup(NamedTuple):
    """Stretches with equally many chunks, padded to one length, which are one call without a kernel for stretches of
    any length."""

    stretches: tuple[int, ...]
    """Their numbers."""
    parents: tuple[int, ...]
    """The stretch that each of them continues. Empty if they continue none."""
    length: int
    """Number of tokens of each, padding included."""


@dataclass(frozen=True)
class StateLevel:
    """Stretches that are one call of a kernel for stretches of any length. Those that they continue are in the level
    before."""

    stretches: tuple[int, ...]
    """Their numbers."""
    parents: tuple[int, ...]
    """The stretch that each of them continues. Empty in the first level."""
    cu_seqlens: torch.Tensor
    """[stretches + 1] int64: where each stretch starts in the level, and the end of the last one."""
    chunk_indices: torch.Tensor
    """[chunks, 2] int64: for each chunk its stretch in the level and its place in the stretch."""
    tokens: int
    """Number of tokens in all its stretches."""


@dataclass(frozen=True)
class Recurrence:
    """The stretches of a packed row, over which Gated DeltaNet layers carry their state, in the order of the row.

    A stretch is a piece or a part of one. It starts with an empty state, or continues another stretch: a piece with a
    context continues the stretch at whose end its context ends, as each answer of a preference pair continues the
    question. A piece is cut where a context or a prompt ends, and its parts continue each other.
    """

    ends: tuple[int, ...]
    """The position after the last token of each stretch."""
    last_tokens: torch.Tensor
    """[stretches, CONVOLUTION_WIDTH] int64: positions of the last tokens up to the end of each stretch, those of the
    stretches that it continues included. -1 where there are fewer."""
    groups: tuple[StateGroup, ...]
    """The stretches, each after the one that it continues."""
    group_order: torch.Tensor
    """[padded tokens] int64: the positions of the tokens, with the stretches in the order of `groups`. Padding repeats
    the last token of its stretch."""
    padding: torch.Tensor
    """[padded tokens] bool: whether an entry of `group_order` is padding."""
    inverse_group_order: torch.Tensor
    """[T] int64: the entry of `group_order` for each token."""
    levels: tuple[StateLevel, ...]
    """The stretches, each in the level after the one that it continues."""
    level_order: torch.Tensor | None
    """[T] int64: the positions of the tokens, with the stretches in the order of `levels`. None if the packed row has
    that order already."""
    inverse_level_order: torch.Tensor | None
    """[T] int64: the inverse of `level_order`."""

    @property
    def continues(self) -> bool:
        """Whether any stretch continues another."""
        return len(self.levels) > 1


@dataclass(frozen=True)
class Segments:
    """The pieces of a packed row, which attention keeps apart."""

    cu_seqlens: torch.Tensor
    """[pieces + 1] int32: where each piece starts, and the end of the last one."""
    longest: int
    """Number of tokens in the longest piece."""
    groups: tuple[tuple[int, int, int], ...]
    """(length, number of tokens attended to, number of pieces) of each group of equal pieces. Without a kernel that
    takes all pieces at once, each group is one call of attention."""
    order: torch.Tensor | None
    """[T] int64: the positions of the tokens, with the pieces in the order of `groups`. None if the packed row has that
    order already."""
    inverse_order: torch.Tensor | None
    """[T] int64: the inverse of `order`, which restores the order of the packed row."""
    visible: VisibleContext | None = None
    """The tokens that each piece attends to. None if every piece attends to itself alone."""
    recurrence: Recurrence | None = None
    """How Gated DeltaNet layers take the packed row. None if the model has none."""

    def to(self, device: torch.device, non_blocking: bool = False) -> "Segments":
        return _changed(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Segments":
        return _changed(self, torch.Tensor.pin_memory)


def _changed(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a copy of a dataclass with `change` applied to all its tensors."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple) and value and isinstance(value[0], StateLevel):
        return tuple(_changed(level, change) for level in value)
    if isinstance(value, Segments | VisibleContext | Recurrence | StateLevel):
        return replace(value, **{name: _changed(part, change) for name, part in vars(value).items()})
    return value


class Parts(TypedDict, total=False):
    """The entries of a Batch that only some packed rows have."""

    planes: torch.Tensor
    """[N, patch * patch * channels] uint8: the planes. A plane holds the bytes of one frame of a patch."""
    frame_pairs: torch.Tensor
    """[P, 2] int32: the two planes, one after the other in time, that make up each patch. Absent without clips: then N
    is P, and the plane of a still picture serves as both its frames."""
    grids: torch.Tensor
    """[M, 3] int64: number of patches of each picture or clip in time, height and width."""
    vision: dict[str, torch.Tensor | Segments | int]
    """The values that the vision tower would otherwise compute from the grids."""
    features: torch.Tensor
    """[levels, P, width]: stored outputs of a frozen vision tower, for the merger and for each DeepStack merger. They
    replace planes, frame_pairs, grids and vision."""
    answers: torch.Tensor
    """[2 * S] int64, for preference pairs: number of learned tokens in the first chosen answer, in the first rejected
    answer, in the second chosen answer, and so on."""
    answer_of: torch.Tensor
    """[L] int64, for preference pairs: index in `answers` of the answer that each learned token belongs to."""
    sources: torch.Tensor
    """[L] int64, if data.train has several entries: index of the entry that each learned token belongs to."""
    reference: torch.Tensor
    """[L]: log-probabilities of the reference model, if they were computed before the run."""


class Batch(Parts):
    """One packed row: T tokens of S samples, L of them learned, and M pictures and clips of P patches.

    Pictures and clips are in the order of their placeholder tokens. Every process has to run the vision tower, or what
    follows it, once in each pass, because the processes of a sharded run would otherwise wait for each other forever.
    A packed row without media therefore carries one blank picture, which has no placeholder token.
    """

    input_ids: torch.Tensor
    """[1, T] int64: token ids."""
    labels: torch.Tensor
    """[1, T] int64: the token id at learned tokens, -100 elsewhere. The first token of a sample is never learned."""
    learned: torch.Tensor
    """[L] int64: positions of the learned tokens, where `labels` is not -100."""
    predictor_positions: torch.Tensor
    """[L] int64: position of the hidden state that predicts each learned token. This is the token before it, or the end
    of the question that the two answers of a preference pair share."""
    position_ids: torch.Tensor
    """[4, 1, T] int64: index 0 counts from 0 in each sample; 1 to 3 are temporal, height and width (M-RoPE)."""
    samples: Segments
    """The pieces of all samples."""
    placeholder_positions: torch.Tensor
    """[P / merge^2] int64: positions of the placeholder tokens. Each stands for one group of merged patches. Empty
    without media."""


@dataclass(frozen=True)
class Contents:
    """The sizes of a Batch as plain Python numbers, so that they need not be read back from the device."""

    pieces: tuple[tuple[Piece, ...], ...]
    """The pieces of each sample."""
    supervised: int
    """Number of learned (supervised) tokens."""
    grids: tuple[tuple[int, int, int], ...]
    """Number of patches of each picture or clip in time, height and width."""
    chosen: int = 0
    """Number of learned tokens in the chosen answers of preference pairs."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of tokens in each sample."""
        return tuple(sum(piece.length for piece in sample) for sample in self.pieces)
