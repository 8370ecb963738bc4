"""What crosses from data to model: one row of samples laid end to end, without padding.

Whatever can be known from sizes alone is computed where rows are made, so that a step never waits for the device to
tell a number.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Required, TypedDict

import torch


@dataclass(frozen=True)
class Segments:
    """The pieces of a row that attention keeps apart."""

    cu_seqlens: torch.Tensor
    """[pieces + 1] int32: where each begins, and the end."""
    longest: int
    groups: tuple[tuple[int, int], ...]
    """Pieces of one length share a call where no kernel takes them all: the length, and how many."""
    order: torch.Tensor | None
    """[T]: the places of the tokens, pieces sorted by length; None where they are already."""
    back: torch.Tensor | None
    """[T]: from there to the order of the row."""

    def to(self, device: torch.device, non_blocking: bool = False) -> "Segments":
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Segments":
        return self._with(torch.Tensor.pin_memory)

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Segments":
        order, back = (None if x is None else change(x) for x in (self.order, self.back))
        return replace(self, cu_seqlens=change(self.cu_seqlens), order=order, back=back)


class Batch(TypedDict, total=False):
    """T tokens of S samples; M pictures and clips of P patches, in the order of their placeholders.

    Every process runs the vision tower, or what follows it, once in each pass, or sharded runs would wait for each
    other forever: a row without media carries one blank picture, which no token stands for.
    """

    input_ids: Required[torch.Tensor]
    """[1, T]"""
    labels: Required[torch.Tensor]
    """[1, T], -100 where nothing is learned, and so at the first token of every sample."""
    learned: Required[torch.Tensor]
    """[L]: where labels are not -100."""
    position_ids: Required[torch.Tensor]
    """[4, 1, T]: row 0 restarts at 0 for each sample; rows 1 to 3 are temporal, height and width (M-RoPE)."""
    samples: Required[Segments]
    places: Required[torch.Tensor]
    """[P / merge^2]: where the placeholders stand, each for one group of merged patches; empty without media."""
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


@dataclass(frozen=True)
class Contents:
    """What is in a Batch, in plain numbers beside it: nobody has to ask the device for them."""

    lengths: tuple[int, ...]
    """Tokens of each sample."""
    supervised: int
    grids: tuple[tuple[int, int, int], ...]
