"""The segments of a packed row that attention uses."""

from itertools import chain, pairwise

import pytest
import torch

from qwenvl_train.batch import Piece
from qwenvl_train.data.render.segments import recurrence_of, segments_of, segments_of_samples


@pytest.mark.parametrize("lengths", [[5], [2, 2, 2], [3, 1, 3, 2], [4, 0, 1], [1, 2, 3]])
def test_groups_take_every_token_once(lengths):
    told = segments_of(lengths)
    borders = torch.tensor([0, *lengths]).cumsum(0).unique()
    assert torch.equal(told.cu_seqlens.long(), borders)
    assert told.cu_seqlens.dtype == torch.int32
    assert told.longest == max(lengths)
    row = torch.arange(sum(lengths))
    arranged = row if told.order is None else row[told.order]
    pieces = [row[start:end].tolist() for start, end in pairwise(borders)]
    start = 0
    for length, sees, count in told.groups:
        assert sees == length
        taken = arranged[start : start + length * count].view(count, length)
        assert taken.tolist() == [piece for piece in pieces if len(piece) == length]
        start += length * count
    assert start == len(row)
    assert torch.equal(arranged if told.inverse_order is None else arranged[told.inverse_order], row)


def test_a_row_that_is_in_order_is_not_rearranged():
    assert segments_of([2, 2, 7]).order is None
    assert segments_of([7, 2]).order is not None


def test_it_moves_as_a_whole():
    moved = segments_of([3, 1]).to(torch.device("meta"))
    assert {moved.cu_seqlens.device.type, moved.order.device.type, moved.inverse_order.device.type} == {"meta"}
    assert moved.groups == ((1, 1, 1), (3, 3, 1))
    pairs = segments_of_samples([(Piece(2), Piece(1, 2))]).to(torch.device("meta"))
    assert {
        x.device.type for x in (pairs.visible.positions, pairs.visible.grouped_positions, pairs.visible.cu_seqlens)
    } == {"meta"}


PAIRS = [
    [(Piece(3), Piece(2, 3), Piece(4, 3))],
    [(Piece(5),), (Piece(3), Piece(2, 3), Piece(2, 3)), (Piece(1), Piece(6, 1), Piece(2, 1))],
    [(Piece(2), Piece(3)), (Piece(2), Piece(1, 2), Piece(1, 2)), (Piece(2), Piece(1, 2), Piece(1, 2))],
]


@pytest.mark.parametrize("samples", PAIRS)
def test_a_piece_sees_its_context_and_itself(samples):
    told = segments_of_samples(samples)
    expected, start = [], 0
    for sample in samples:
        begin = start
        for length, context in sample:
            expected.append([*range(begin, begin + context), *range(start, start + length)])
            start += length
    borders = told.visible.cu_seqlens.tolist()
    assert [told.visible.positions[a:b].tolist() for a, b in pairwise(borders)] == expected
    assert told.visible.longest == max(map(len, expected))
    row, at, seen_at, found = torch.arange(start), 0, 0, []
    row = row if told.order is None else row[told.order]
    for length, sees, count in told.groups:
        for piece in range(count):
            own = row[at + piece * length : at + (piece + 1) * length].tolist()
            seen = told.visible.grouped_positions[seen_at + piece * sees : seen_at + (piece + 1) * sees].tolist()
            assert seen[sees - length :] == own
            found.append(seen)
        at, seen_at = at + length * count, seen_at + sees * count
    assert sorted(found) == sorted(expected)


ROWS = [
    ([(Piece(5),)], ()),
    ([(Piece(1),), (Piece(130),), (Piece(64),), (Piece(0),), (Piece(65),), (Piece(3),)], ()),
    ([(Piece(70), Piece(2, 70), Piece(64, 70)), (Piece(4), Piece(3))], ()),
    ([(Piece(9),), (Piece(2), Piece(1, 2), Piece(66, 2))], (3, 4, 11, 12)),
    ([(Piece(6), Piece(2, 3), Piece(2, 6))], ()),
]
"""Samples, and where prompts end."""


def before(row: list[list[Piece]]) -> dict[int, list[int]]:
    """The tokens that come before each token in its own conversation."""
    found, start = {}, 0
    for sample in row:
        begin = start
        for length, context in sample:
            for place in range(start, start + length):
                found[place] = [*range(begin, begin + context), *range(start, place)]
            start += length
    return found


@pytest.mark.parametrize(("samples", "stops"), ROWS)
def test_a_state_passes_through_the_tokens_before_it(samples, stops):
    """Every token is in one stretch. A stretch and those that it continues are the tokens of one conversation."""
    told, expected = recurrence_of(samples, stops), before(samples)
    starts = (0, *told.ends[:-1])
    paths: dict[int, list[int]] = {}
    for level in told.levels:
        for stretch, parent in zip(level.stretches, level.parents or [None] * len(level.stretches), strict=True):
            paths[stretch] = [*paths.get(parent, []), *range(starts[stretch], told.ends[stretch])]
    for stretch, path in paths.items():
        assert path[:-1] == expected[path[-1]]
        assert told.last_tokens[stretch].tolist() == [-1] * (4 - len(path)) + path[-4:]
    assert sorted(paths) == list(range(len(told.ends)))
    assert set(stops) <= set(told.ends)


@pytest.mark.parametrize(("samples", "stops"), ROWS)
def test_groups_and_levels_have_each_stretch_after_the_one_it_continues(samples, stops):
    told = recurrence_of(samples, stops)
    starts, seen, at, entry = (0, *told.ends[:-1]), set(), 0, 0
    for group in told.groups:
        assert seen.issuperset(group.parents)
        for stretch in group.stretches:
            own = list(range(starts[stretch], told.ends[stretch]))
            places = told.group_order[entry : entry + group.length].tolist()
            assert places == own + [own[-1]] * (group.length - len(own))
            assert told.padding[entry : entry + group.length].tolist() == [
                index >= len(own) for index in range(group.length)
            ]
            assert -(-len(own) // 64) == -(-group.length // 64)
            entry += group.length
        seen |= set(group.stretches)
    row = torch.arange(told.ends[-1])
    assert torch.equal(told.group_order[told.inverse_group_order], row)
    order = row if told.level_order is None else told.level_order
    assert torch.equal(row if told.inverse_level_order is None else order[told.inverse_level_order], row)
    for level in told.levels:
        lengths = level.cu_seqlens.diff().tolist()
        assert [told.ends[one] - starts[one] for one in level.stretches] == lengths
        tokens = chain.from_iterable(range(starts[one], told.ends[one]) for one in level.stretches)
        assert order[at : at + level.tokens].tolist() == list(tokens)
        chunks = [[place, chunk] for place, length in enumerate(lengths) for chunk in range(-(-length // 64))]
        assert level.chunk_indices.tolist() == chunks
        at += level.tokens
    assert at == len(row)


def test_a_row_of_conversations_is_one_level_in_its_own_order():
    told = recurrence_of([(Piece(3),), (Piece(200),), (Piece(2),)])
    assert not told.continues
    assert told.level_order is None
    assert [group.stretches for group in told.groups] == [(0, 2), (1,)]
    moved = segments_of_samples([(Piece(3), Piece(2, 3))], recurrent=True).to(torch.device("meta")).recurrence
    tensors = [moved.padding, moved.last_tokens, moved.level_order, moved.levels[1].cu_seqlens]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
