"""From lengths to what attention needs to know of them."""

from collections.abc import Iterable

import numpy as np
import torch

from qwenvl_train.batch import Segments


def segments_of(lengths: Iterable[int]) -> Segments:
    """Of pieces that lie end to end; an empty one is none."""
    sizes = np.array([length for length in lengths if length], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    by_length = np.argsort(sizes, kind="stable")
    of_each, counts = np.unique(sizes, return_counts=True)
    order = back = None
    if not np.array_equal(by_length, np.arange(len(sizes))):
        order = np.concatenate([np.arange(starts[piece], starts[piece] + sizes[piece]) for piece in by_length])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
    return Segments(
        cu_seqlens=torch.tensor([0, *np.cumsum(sizes)], dtype=torch.int32),
        longest=int(sizes.max()),
        groups=tuple(zip(of_each.tolist(), counts.tolist(), strict=True)),
        order=None if order is None else torch.from_numpy(order),
        back=None if back is None else torch.from_numpy(back),
    )
