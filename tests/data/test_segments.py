"""What attention is told of the pieces of a row."""

from itertools import pairwise

import pytest
import torch

from qwenvl_train.data.segments import segments_of


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
    for length, count in told.groups:
        taken = arranged[start : start + length * count].view(count, length)
        assert taken.tolist() == [piece for piece in pieces if len(piece) == length]
        start += length * count
    assert start == len(row)
    assert torch.equal(arranged if told.back is None else arranged[told.back], row)


def test_a_row_that_is_in_order_is_not_rearranged():
    assert segments_of([2, 2, 7]).order is None
    assert segments_of([7, 2]).order is not None


def test_it_moves_as_a_whole():
    moved = segments_of([3, 1]).to(torch.device("meta"))
    assert {moved.cu_seqlens.device.type, moved.order.device.type, moved.back.device.type} == {"meta"}
    assert moved.groups == ((1, 1), (3, 1))
