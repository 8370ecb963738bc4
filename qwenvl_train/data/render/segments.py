"""Builds from the lengths of pieces the Segments that attention needs."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import torch

from qwenvl_train.batch import Piece, Segments, VisibleContext


def segments_of(lengths: Iterable[int]) -> Segments:
    """Return the Segments of pieces without context that lie end to end. Pieces of length 0 are dropped."""
    return segments_of_samples([(Piece(length),) for length in lengths])


def segments_of_samples(samples: Iterable[Sequence[Piece]]) -> Segments:
    """Return the Segments of the given samples' pieces, which lie end to end. Pieces of length 0 are dropped."""
    samples = [[piece for piece in pieces if piece.length] for pieces in samples]
    pieces = np.array(list(chain.from_iterable(samples)), dtype=np.int64)
    sizes, sees = pieces[:, 0], pieces.sum(axis=1)
    starts = np.cumsum(sizes) - sizes
    of_each = np.cumsum([0, *map(len, samples)])[:-1]
    begins = np.repeat(starts[of_each], [len(sample) for sample in samples])
    """[pieces]: start of the sample that each piece belongs to."""
    alike = np.lexsort((sizes, sees))
    kinds, counts = np.unique(np.stack([sees, sizes], axis=1), axis=0, return_counts=True)
    order = inverse_order = None
    if not np.array_equal(alike, np.arange(len(sizes))):
        order = _joined([np.arange(starts[piece], starts[piece] + sizes[piece]) for piece in alike])
        inverse_order = torch.empty_like(order)
        inverse_order[order] = torch.arange(len(order))
    return Segments(
        cu_seqlens=_borders(sizes),
        longest=int(sizes.max()),
        groups=tuple((size, sees, count) for (sees, size), count in zip(kinds.tolist(), counts.tolist(), strict=True)),
        order=order,
        inverse_order=inverse_order,
        visible=_visible(pieces, starts, begins, alike) if pieces[:, 1].any() else None,
    )


def _visible(pieces: np.ndarray, starts: np.ndarray, begins: np.ndarray, alike: np.ndarray) -> VisibleContext:
    sees = pieces.sum(axis=1)
    positions = [
        np.concatenate([np.arange(begin, begin + context), np.arange(start, start + length)])
        for (length, context), start, begin in zip(pieces, starts, begins, strict=True)
    ]
    return VisibleContext(
        cu_seqlens=_borders(sees),
        longest=int(sees.max()),
        positions=_joined(positions),
        grouped_positions=_joined([positions[piece] for piece in alike]),
    )


def _borders(sizes: np.ndarray) -> torch.Tensor:
    return torch.tensor([0, *np.cumsum(sizes)], dtype=torch.int32)


def _joined(positions: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(positions))
