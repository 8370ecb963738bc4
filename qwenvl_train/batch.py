"""What crosses from data to model: one row of samples laid end to end, without padding."""

from dataclasses import dataclass
from typing import Required, TypedDict

import torch


class Batch(TypedDict, total=False):
    """T tokens of S samples; M pictures and clips of P patches, in the order of their placeholders."""

    input_ids: Required[torch.Tensor]
    """[1, T]"""
    labels: Required[torch.Tensor]
    """[1, T], -100 where nothing is learned, and so at the first token of every sample."""
    position_ids: Required[torch.Tensor]
    """[4, 1, T]: row 0 restarts at 0 for each sample; rows 1 to 3 are temporal, height and width (M-RoPE)."""
    cu_seqlens: Required[torch.Tensor]
    """[S + 1] int32: where each sample starts, and the end."""
    max_seqlen: Required[int]
    planes: torch.Tensor
    """[N, channels * patch * patch] uint8: one frame of a patch each, as bytes. Absent without media."""
    pairs: torch.Tensor
    """[P, 2] int32: the planes that make up each patch in time. Absent without clips: then N is P, and a still
    picture's plane is both its frames."""
    grids: torch.Tensor
    """[M, 3]: patches of each picture or clip in time, height and width."""


@dataclass(frozen=True)
class Contents:
    """What is in a Batch, in plain numbers beside it: nobody has to ask the device for them."""

    lengths: tuple[int, ...]
    """Tokens of each sample."""
    supervised: int
    grids: tuple[tuple[int, int, int], ...]
