"""The segments of a packed row that attention uses."""

from itertools import pairwise

import pytest
import torch

from qwenvl_train.batch import Piece
from qwenvl_train.data.render.segments import segments_of, segments_of_samples


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
