"""Gated DeltaNet layers over a packed row equal transformers' own over each sample alone."""

import inspect
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoProcessor
from transformers.models.qwen3_5 import modeling_qwen3_5

from qwenvl_train.batch import Piece
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.render.segments import segments_of_samples
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model import linear_attention
from qwenvl_train.model.checkpointing import use_checkpointing
from qwenvl_train.model.linear_attention import Kernels, about_missing_kernels, use_packed_linear_attention
from tests.conftest import conversation, sample_of
from tests.loading import as_theirs_and_ours, renderer_of
from tests.model.test_pairs import alone
from tests.videos import write_video

WIDTH = 64
LENGTHS = ([1], [1, 3, 4, 63, 64, 65, 130], [2, 2, 2], [70, 66])
PAIRS = [
    [(Piece(40), Piece(7, 40), Piece(70, 40))],
    [(Piece(5),), (Piece(1), Piece(1, 1), Piece(2, 1)), (Piece(64), Piece(65, 64), Piece(3, 64)), (Piece(3), Piece(4))],
    [(Piece(2), Piece(130, 2), Piece(1, 2)), (Piece(130), Piece(1, 130), Piece(63, 130))],
]


def gated_delta_net(packed: bool) -> torch.nn.Module:
    model = build_model("qwen3_5").model.language_model
    if packed:
        use_packed_linear_attention(model)
    return model.layers[0].linear_attn


def in_a_row(states: torch.Tensor, samples, stops=()) -> torch.Tensor:
    return gated_delta_net(packed=True)(states, cu_seq_lens_q=segments_of_samples(samples, True, stops))


def one_by_one(states: torch.Tensor, samples) -> torch.Tensor:
    """Each piece behind its context, through transformers' own layer."""
    layer, parts, start = gated_delta_net(packed=False), [], 0
    for sample in samples:
        begin = start
        for length, context in sample:
            whole = torch.cat([states[:, begin : begin + context], states[:, start : start + length]], dim=1)
            parts.append(layer(whole)[:, context:])
            start += length
    return torch.cat(parts, dim=1)


def some_states(samples) -> torch.Tensor:
    tokens = sum(piece.length for sample in samples for piece in sample)
    return torch.randn(1, tokens, WIDTH, generator=torch.Generator().manual_seed(0)).requires_grad_()


def worst_difference(samples, stops=()) -> tuple[float, float]:
    """Return the largest differences of the outputs and of the gradients of the input, as shares of the largest."""
    states = some_states(samples)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for output in (in_a_row(states, samples, stops), one_by_one(states, samples)):
        results.append([output, *torch.autograd.grad((output * weights).sum(), states)])
    return tuple(((one - two).abs().max() / two.abs().max()).item() for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("samples", [[(Piece(length),) for length in lengths] for lengths in LENGTHS])
def test_samples_of_every_length_equal_one_by_one(samples):
    # Measured worst cases: 3.5e-7 and 3.3e-7
    output, gradient = worst_difference(samples)
    assert output < 5e-6
    assert gradient < 1e-5


@pytest.mark.parametrize("samples", PAIRS)
def test_both_answers_continue_their_question(samples):
    # Measured worst cases: 5.0e-7 and 6.8e-7
    output, gradient = worst_difference(samples)
    assert output < 5e-6
    assert gradient < 1e-5


@pytest.mark.parametrize("stops", [(1, 2, 3), (63, 64, 100), tuple(range(20))])
def test_a_cut_changes_nothing(stops):
    # Measured worst cases: 6.5e-7 and 5.4e-7
    output, gradient = worst_difference([(Piece(130),), (Piece(9),)], stops)
    assert output < 5e-6
    assert gradient < 1e-5


class Boundaries:
    """Functions with the arguments and results of fla's, made of transformers' own, one call for each stretch. They
    count their calls. Without `heeded`, they compute as if they were given no boundaries."""

    def __init__(self, convolution_heeds: bool = True, recurrence_heeds: bool = True):
        self.calls: list[tuple[str, list[int], bool]] = []
        self._heeds = {"convolution": convolution_heeds, "recurrence": recurrence_heeds}

    def _pieces(self, name, tokens, initial_state, cu_seqlens, chunk_indices):
        borders = cu_seqlens.tolist()
        lengths = cu_seqlens.diff().tolist()
        self.calls.append((name, lengths, initial_state is not None))
        assert borders[-1] == tokens
        assert initial_state is None or len(initial_state) == len(lengths)
        expected = [[place, chunk] for place, length in enumerate(lengths) for chunk in range(-(-length // 64))]
        assert chunk_indices.tolist() == expected
        if self._heeds[name]:
            return list(pairwise(borders))
        return [(0, tokens)]

    def convolution(
        self, x, weight=None, bias=None, residual=None, initial_state=None, output_final_state=False, activation=None,
        backend="triton", cu_seqlens=None, cu_seqlens_cpu=None, chunk_indices=None, cp_context=None,
    ):  # fmt: skip
        parts, width = [], weight.shape[-1]
        assert x.shape[0] == 1
        for place, (start, end) in enumerate(
            self._pieces("convolution", x.shape[1], initial_state, cu_seqlens, chunk_indices)
        ):
            if initial_state is None:
                before = x.new_zeros(x.shape[-1], width)
            else:
                assert initial_state.shape[1:] == (x.shape[-1], width)
                before = initial_state[place]
            long = torch.cat([before[:, 1:], x[0, start:end].T], dim=1)
            parts.append(F.silu(F.conv1d(long[None], weight[:, None], bias, groups=len(weight)))[0].T)
        assert activation == "silu"
        return torch.cat(parts)[None], None

    def recurrence(
        self, q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False,
        use_qk_l2norm_in_kernel=False, cu_seqlens=None, cu_seqlens_cpu=None, chunk_indices=None,
    ):  # fmt: skip
        plain = inspect.unwrap(modeling_qwen3_5.torch_chunk_gated_delta_rule)
        parts, lasts = [], []
        for place, (start, end) in enumerate(
            self._pieces("recurrence", q.shape[1], initial_state, cu_seqlens, chunk_indices)
        ):
            taken = (x[:, start:end] for x in (q, k, v))
            out, last = plain(
                *taken, g=g[:, start:end], beta=beta[:, start:end],
                initial_state=None if initial_state is None else initial_state[place : place + 1],
                output_final_state=True, use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel,
            )  # fmt: skip
            parts.append(out)
            lasts.append(last)
        return torch.cat(parts, dim=1), torch.cat(lasts) if output_final_state else None


def with_kernels(monkeypatch, boundaries: Boundaries) -> None:
    kernels = Kernels(boundaries.convolution, boundaries.recurrence)
    monkeypatch.setattr(linear_attention, "usable_kernels", lambda mixed: kernels)


@pytest.mark.parametrize("samples", [*([(Piece(length),) for length in lengths] for lengths in LENGTHS), *PAIRS])
def test_both_kernels_get_the_boundaries_and_the_states(samples, monkeypatch):
    boundaries = Boundaries()
    with_kernels(monkeypatch, boundaries)
    # Measured worst cases: 5.0e-7 and 6.8e-7
    output, gradient = worst_difference(samples)
    assert output < 5e-6
    assert gradient < 1e-5
    first = [max(piece.length, 0) for sample in samples for piece in sample if not piece.context]
    after = [piece.length for sample in samples for piece in sample if piece.context]
    expected = [("convolution", first, False), ("recurrence", first, False)]
    if after:
        expected += [("convolution", after, True), ("recurrence", after, True)]
    assert boundaries.calls == expected


@pytest.mark.parametrize(
    "heeding", [{"convolution_heeds": False}, {"recurrence_heeds": False}], ids=["convolution", "recurrence"]
)
def test_boundaries_in_only_one_of_the_two_leak(heeding, monkeypatch):
    """This is the failure that the tests above must be able to see. A convolution without boundaries leaks silently
    into the first three tokens of each sample."""
    with_kernels(monkeypatch, Boundaries(**heeding))
    samples = [(Piece(length),) for length in (5, 70, 9)]
    states = some_states(samples)
    difference = (in_a_row(states, samples) - one_by_one(states, samples)).abs()[0].amax(dim=-1)
    # Measured: 0.40 and 0.35 of the largest output
    assert difference.max() > 0.1 * one_by_one(states, samples).abs().max()
    assert difference[:5].max() < 1e-6
    if "convolution_heeds" in heeding:
        assert difference[5] > 1e-4


def test_autocast_leaves_the_recurrence_in_float32():
    """It would round the state to 16 bits after each chunk."""
    samples = [(Piece(length),) for length in (130, 64, 200)]
    states = some_states(samples)
    exact = one_by_one(states, samples)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (of_row(states, samples).float() for of_row in (in_a_row, one_by_one))
    # Measured: 0.0085, and 0.0095 for transformers' layer, which autocast also changes inside
    assert (ours - exact).norm() < 0.95 * (theirs - exact).norm()


def rows_of_all_kinds(pictures, clip: Path) -> list[dict]:
    red = ("assistant", ["Red."])
    return [
        conversation(("user", ["Who?"]), red),
        conversation(("user", [pictures[1], "and", pictures[3], "What?"]), ("assistant", ["Red and blue. " * 9])),
        conversation(("user", [clip, "What happens?"]), red, ("user", [pictures[2], "And this?"]), red),
        conversation(("user", ["A long question. " * 30]), ("assistant", ["No."])),
    ]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("model_type", ["qwen3_5", "qwen3_5_moe"])
def test_a_packed_row_has_the_loss_and_every_gradient_of_its_samples_alone(
    model_type, adapters, checkpointing, checkpoints, pictures, tmp_path
):
    """Text, pictures and a clip in one row, against transformers' own forward pass."""
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    renderer = renderer_of(processor, checkpoints[model_type])
    theirs, ours = as_theirs_and_ours(model_type, checkpoints[model_type], processor, adapters)
    if checkpointing:
        inner = ours.get_base_model() if adapters else ours
        use_checkpointing(inner, [FAMILIES[model_type].language_path], every=1, reentrant=False)
        ours.train()
    clip = write_video(tmp_path / "clip.mp4", frames=8, size=(64, 48))
    samples = [sample_of(row) for row in rows_of_all_kinds(pictures, clip)]
    expected = torch.cat([alone(theirs, sample, renderer, processor) for sample in samples])
    got = ours(**collate([renderer.render(sample) for sample in samples], renderer)).log_probs
    # Measured worst case: 9.5e-7
    assert (got - expected).abs().max() < 1e-5
    got.sum().backward()
    expected.sum().backward()
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            gradient = reference[name].grad
            gradient = torch.zeros_like(parameter) if gradient is None else gradient
            worst = ((parameter.grad - gradient).abs().max() / gradient.abs().max().clamp(min=1e-6)).item()
            # Measured worst case: 2.6e-6 of the parameter's largest gradient
            assert worst < 2e-5, f"{name}: {worst}"


def test_a_convolution_of_another_width_is_refused():
    model = build_model("qwen3_5", text={"linear_conv_kernel_dim": 3})
    with pytest.raises(UserError, match=r"reads 3 tokens \(linear_conv_kernel_dim\); only 4"):
        use_packed_linear_attention(model.model.language_model)


def test_a_gpu_without_the_kernels_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "qwenvl-train[fla]" in about_missing_kernels(FAMILIES["qwen3_5"])
    assert about_missing_kernels(FAMILIES["qwen3_vl"]) is None
    assert about_missing_kernels(replace(FAMILIES["qwen3_5"], linear_attention=False)) is None
