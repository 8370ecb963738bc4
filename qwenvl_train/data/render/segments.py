"""Builds from the lengths of pieces the Segments that attention and Gated DeltaNet layers need."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, groupby, pairwise
from typing import NamedTuple

import numpy as np
import torch

from qwenvl_train.batch import (
    CHUNK,
    CONVOLUTION_WIDTH,
    Piece,
    Recurrence,
    Segments,
    StateGroup,
    StateLevel,
    VisibleContext,
)


def segments_of(lengths: Iterable[int]) -> Segments:
    """Return the Segments of pieces without context that lie end to end. Pieces of length 0 are dropped."""
    return segments_of_samples([(Piece(length),) for length in lengths])


def segments_of_samples(
    samples: Iterable[Sequence[Piece]], recurrent: bool = False, stops: Collection[int] = ()
) -> Segments:
    """Return the Segments of the given samples' pieces, which lie end to end. Pieces of length 0 are dropped.

    Args:
        recurrent: Whether the model has Gated DeltaNet layers, which need a Recurrence.
        stops: Positions in the packed row before which a stretch of the Recurrence ends.
    """
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
        recurrence=recurrence_of(samples, stops) if recurrent else None,
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


class _Stretch(NamedTuple):
    start: int
    end: int
    parent: int
    """Number of the stretch that it continues, or -1."""
    level: int
    last_tokens: tuple[int, ...]

    @property
    def chunks(self) -> int:
        return -(-(self.end - self.start) // CHUNK)


def recurrence_of(samples: Iterable[Sequence[Piece]], stops: Collection[int] = ()) -> Recurrence:
    """Return the Recurrence of a packed row. Pieces of length 0 are dropped.

    Args:
        stops: Positions in the packed row before which a stretch ends, so that the state there is known.
    """
    found = list(_stretches([[piece for piece in pieces if piece.length] for pieces in samples], stops))
    numbers = range(len(found))
    in_groups = sorted(numbers, key=lambda number: (found[number].level, found[number].chunks))
    groups, group_order, padding = [], [], []
    for _, alike in groupby(in_groups, key=lambda number: (found[number].level, found[number].chunks)):
        group = tuple(alike)
        length = max(found[number].end - found[number].start for number in group)
        groups.append(StateGroup(group, _parents(found, group), length))
        for number in group:
            places = np.arange(found[number].start, found[number].start + length)
            padding.append(places >= found[number].end)
            group_order.append(places.clip(max=found[number].end - 1))
    is_padding = torch.from_numpy(np.concatenate(padding))
    order = _joined(group_order)
    in_levels = sorted(numbers, key=lambda number: found[number].level)
    levels = [_level(found, tuple(alike)) for _, alike in groupby(in_levels, key=lambda number: found[number].level)]
    level_order = None
    if len(levels) > 1:
        level_order = _joined([np.arange(found[number].start, found[number].end) for number in in_levels])
    return Recurrence(
        ends=tuple(stretch.end for stretch in found),
        last_tokens=torch.tensor([stretch.last_tokens for stretch in found]),
        groups=tuple(groups),
        group_order=order,
        padding=is_padding,
        inverse_group_order=_inverse(order[~is_padding], (~is_padding).nonzero()[:, 0]),
        levels=tuple(levels),
        level_order=level_order,
        inverse_level_order=None if level_order is None else _inverse(level_order, torch.arange(len(level_order))),
    )


def _stretches(samples: list[list[Piece]], stops: Collection[int]) -> Iterator[_Stretch]:
    made: list[_Stretch] = []
    start = 0
    for sample in samples:
        begin = start
        at: dict[int, int] = {}
        """The number of the stretch that ends at a position."""
        borders = {begin + piece.context for piece in sample} | set(stops)
        for length, context in sample:
            parent = at[begin + context] if context else -1
            inside = sorted(border for border in borders if start < border < start + length)
            for first, end in pairwise([start, *inside, start + length]):
                before = made[parent].last_tokens if parent >= 0 else (-1,) * CONVOLUTION_WIDTH
                last_tokens = (*before, *range(max(first, end - CONVOLUTION_WIDTH), end))[-CONVOLUTION_WIDTH:]
                level = made[parent].level + 1 if parent >= 0 else 0
                made.append(_Stretch(first, end, parent, level, last_tokens))
                parent = at[end] = len(made) - 1
                yield made[-1]
            start += length


def _parents(found: list[_Stretch], numbers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(found[number].parent for number in numbers) if found[numbers[0]].level else ()


def _level(found: list[_Stretch], numbers: tuple[int, ...]) -> StateLevel:
    lengths = [found[number].end - found[number].start for number in numbers]
    chunks = [(place, chunk) for place, number in enumerate(numbers) for chunk in range(found[number].chunks)]
    return StateLevel(
        stretches=numbers,
        parents=_parents(found, numbers),
        cu_seqlens=torch.tensor([0, *np.cumsum(lengths)]),
        chunk_indices=torch.tensor(chunks),
        tokens=sum(lengths),
    )


def _inverse(order: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(order).index_copy_(0, order, entries)
