"""What crosses from data to model: one row of samples laid end to end, without padding."""

from typing import Required, TypedDict

import torch


class Batch(TypedDict, total=False):
    """T tokens of S samples; P patches of M pictures, in the order of their placeholders."""

    input_ids: Required[torch.Tensor]
    """[1, T]"""
    labels: Required[torch.Tensor]
    """[1, T], -100 where nothing is learned, and so at the first token of every sample."""
    position_ids: Required[torch.Tensor]
    """[4, 1, T]: row 0 restarts at 0 for each sample; rows 1 to 3 are temporal, height and width (M-RoPE)."""
    cu_seqlens: Required[torch.Tensor]
    """[S + 1] int32: where each sample starts, and the end."""
    max_seqlen: Required[int]
    patches: torch.Tensor
    """[P, channels * patch * patch] uint8; normalised, and repeated in time, on the device. Absent without media."""
    grids: torch.Tensor
    """[M, 3]: patches of each picture in time, height and width."""
