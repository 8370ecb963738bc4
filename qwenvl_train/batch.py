"""What crosses from data to model: one row of samples laid end to end, without padding.

Whatever can be known from sizes alone is computed where rows are made, so that a step never waits for the device to
tell a number.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypedDict, TypeVar

import torch


class Piece(NamedTuple):
    """Tokens of a sample that lie side by side: each sees the ones before it in the piece, and the context."""

    length: int
    context: int = 0
    """So many tokens at the beginning of the sample, which both answers to a question share."""


@dataclass(frozen=True)
class VisibleContext:
    """What the pieces of a row see, where some of them have a context."""

    cu_seqlens: torch.Tensor
    """[pieces + 1] int32"""
    longest: int
    places: torch.Tensor
    """[K]: in the row; what the first piece sees, what the second one sees, …"""
    grouped: torch.Tensor
    """[K]: the same, pieces in the order of `Segments.groups`."""


@dataclass(frozen=True)
class Segments:
    """The pieces of a row that attention keeps apart."""

    cu_seqlens: torch.Tensor
    """[pieces + 1] int32: where each begins, and the end."""
    longest: int
    groups: tuple[tuple[int, int, int], ...]
    """Pieces alike share a call where no kernel takes them all: their length, how much they see, how many there are."""
    order: torch.Tensor | None
    """[T]: the places of the tokens, pieces in the order of `groups`; None where they are already."""
    back: torch.Tensor | None
    """[T]: from there to the order of the row."""
    seen: VisibleContext | None = None
    """None where each piece sees itself alone."""

    def to(self, device: torch.device, non_blocking: bool = False) -> "Segments":
        return _changed(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Segments":
        return _changed(self, torch.Tensor.pin_memory)


Part = TypeVar("Part", Segments, VisibleContext)


def _changed(part: Part, change: Callable[[torch.Tensor], torch.Tensor]) -> Part:
    """With all its tensors changed."""
    new: dict[str, Any] = {}
    for name, value in vars(part).items():
        if isinstance(value, torch.Tensor):
            new[name] = change(value)
        elif isinstance(value, VisibleContext):
            new[name] = _changed(value, change)
    return replace(part, **new)


class Parts(TypedDict, total=False):
    """What not every row has."""

    planes: torch.Tensor
    """[N, patch * patch * channels] uint8: one frame of a patch each, as bytes."""
    pairs: torch.Tensor
    """[P, 2] int32: the planes that make up each patch in time. Absent without clips: then N is P, and a still
    picture's plane is both its frames."""
    grids: torch.Tensor
    """[M, 3]: patches of each picture or clip in time, height and width."""
    vision: dict[str, torch.Tensor | Segments | int]
    """What the vision tower would compute from the grids."""
    features: torch.Tensor
    """[levels, P, width]: what a frozen tower gave before, for the merger and for each DeepStack merger. Instead of
    planes, pairs, grids and vision."""
    answers: torch.Tensor
    """[2 * S], in a row of pairs: how many tokens are learned of the first chosen answer, of the first rejected one, of
    the second chosen one, and so on."""
    answer_of: torch.Tensor
    """[L], in a row of pairs: to which of these answers each learned token belongs."""
    reference: torch.Tensor
    """[L]: the reference model's log-probabilities, where they were computed before the run."""


class Batch(Parts):
    """T tokens of S samples; M pictures and clips of P patches, in the order of their placeholders.

    Every process runs the vision tower, or what follows it, once in each pass, or sharded runs would wait for each
    other forever: a row without media carries one blank picture, which no token stands for.
    """

    input_ids: torch.Tensor
    """[1, T]"""
    labels: torch.Tensor
    """[1, T], -100 where nothing is learned, and so at the first token of every sample."""
    learned: torch.Tensor
    """[L]: where labels are not -100."""
    predictor_positions: torch.Tensor
    """[L]: the places whose states tell what is learned: the ones before, or the end of the question that two answers
    share."""
    position_ids: torch.Tensor
    """[4, 1, T]: row 0 restarts at 0 for each sample; rows 1 to 3 are temporal, height and width (M-RoPE)."""
    samples: Segments
    places: torch.Tensor
    """[P / merge^2]: where the placeholders stand, each for one group of merged patches; empty without media."""


@dataclass(frozen=True)
class Contents:
    """What is in a Batch, in plain numbers beside it: nobody has to ask the device for them."""

    pieces: tuple[tuple[Piece, ...], ...]
    """Those of each sample."""
    supervised: int
    grids: tuple[tuple[int, int, int], ...]
    chosen: int = 0
    """Of what is supervised, in the better answers of pairs."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sample."""
        return tuple(sum(piece.length for piece in sample) for sample in self.pieces)
