"""Attention over concatenated pieces equals one attention call for each piece."""

import pytest
import torch
import torch.nn.functional as F

from qwenvl_train.batch import Piece
from qwenvl_train.data.render.segments import segments_of, segments_of_samples
from qwenvl_train.errors import UserError
from qwenvl_train.model.attention import packed_attention, refuse_kernel

LENGTHS = ([7], [4, 4, 4], [9, 1, 4, 9, 2])


def tensors(total: int, heads: int, kv_heads: int, device: str = "cpu", dtype=torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, count, total, 16, generator=generator).to(device, dtype).requires_grad_()
        for count in (heads, kv_heads, kv_heads)
    ]


def one_by_one(q, k, v, lengths, causal: bool) -> torch.Tensor:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part, is_causal=causal) for part in parts], dim=2).transpose(1, 2)


def compare(q, k, v, lengths, causal: bool) -> tuple[float, float]:
    """Return the largest differences in the output and in the gradients."""
    pieces = segments_of(lengths).to(q.device)
    weights = torch.linspace(-1, 1, q.shape[2], device=q.device)[None, :, None, None]
    results = []
    for output in (
        packed_attention(torch.nn.Module(), q, k, v, None, pieces, is_causal=causal)[0],
        one_by_one(q, k, v, lengths, causal),
    ):
        results.append([output, *torch.autograd.grad((output.float() * weights).sum(), (q, k, v))])
    worst = [(mine - theirs).abs().max().item() for mine, theirs in zip(*results, strict=True)]
    return worst[0], max(worst[1:])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_pieces_do_not_see_each_other(lengths, kv_heads, causal):
    # Measured worst cases: 2.4e-7 and 9.6e-7
    output, gradient = compare(*tensors(sum(lengths), 4, kv_heads), lengths, causal)
    assert output < 2e-6
    assert gradient < 5e-6


PAIRS = [
    [(Piece(5), Piece(3, 5), Piece(7, 5))],
    [(Piece(6),), (Piece(4), Piece(2, 4), Piece(2, 4)), (Piece(9), Piece(1, 9), Piece(6, 9)), (Piece(3), Piece(4))],
]


def with_context(q, k, v, samples) -> torch.Tensor:
    """Compute each piece separately, together with its context."""
    parts, start = [], 0
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    for sample in samples:
        begin = start
        for length, context in sample:
            own = slice(start, start + length)
            whole = [torch.cat([x[:, :, begin : begin + context], x[:, :, own]], dim=2) for x in (q, k, v)]
            parts.append(F.scaled_dot_product_attention(*whole, is_causal=True)[:, :, context:])
            start += length
    return torch.cat(parts, dim=2).transpose(1, 2)


def compare_pairs(q, k, v, samples) -> tuple[float, float]:
    pieces = segments_of_samples(samples).to(q.device)
    weights = torch.linspace(-1, 1, q.shape[2], device=q.device)[None, :, None, None]
    results = []
    for output in (
        packed_attention(torch.nn.Module(), q, k, v, None, pieces, is_causal=True)[0],
        with_context(q, k, v, samples),
    ):
        results.append([output, *torch.autograd.grad((output.float() * weights).sum(), (q, k, v))])
    worst = [(mine - theirs).abs().max().item() for mine, theirs in zip(*results, strict=True)]
    return worst[0], max(worst[1:])


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("samples", PAIRS)
def test_two_answers_see_their_question_and_not_each_other(samples, kv_heads):
    total = sum(piece.length for sample in samples for piece in sample)
    output, gradient = compare_pairs(*tensors(total, 4, kv_heads), samples)
    # Measured worst cases: 2.4e-7 and 7.2e-7
    assert output < 2e-6
    assert gradient < 5e-6


@pytest.mark.gpu
@pytest.mark.parametrize("samples", PAIRS)
def test_the_kernel_gives_the_same_with_a_context(samples):
    total = sum(piece.length for sample in samples for piece in sample)
    output, gradient = compare_pairs(*tensors(total, 4, 2, "cuda", torch.bfloat16), samples)
    assert output < 2e-2
    assert gradient < 5e-2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_kernel_that_cannot_run_is_refused():
    refuse_kernel("auto", "fp32")
    with pytest.raises(UserError, match=r"train\.attention=flash_attention_3 needs a GPU; use train\.attention=auto"):
        refuse_kernel("flash_attention_3", "bf16")


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_kernel_gives_the_same(lengths, causal):
    given = tensors(sum(lengths), 4, 2, "cuda", torch.bfloat16)
    output, gradient = compare(*given, lengths, causal)
    assert output < 2e-2
    assert gradient < 5e-2
