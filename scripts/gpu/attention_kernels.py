"""Compare attention over packed rows with float64, and time it, at the head sizes of published models.

    python scripts/gpu/attention_kernels.py [--output kernels.json]

Each case runs with train.attention=auto, which is torch's variable-length kernel on a GPU, and with
train.attention=sdpa, which calls the usual kernel once for all sequences of the same length. The errors of the output
and of the gradients of queries, keys and values are relative to the norm of the float64 result. Without a GPU the
sequences are short, and both settings use the same kernel.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import results
import torch
import torch.nn.functional as F

from qwenvl_train.batch import Piece
from qwenvl_train.data.render.segments import segments_of_samples
from qwenvl_train.model.attention import packed_attention

WORST = 1e-2
"""The largest relative error that passes. bf16 has 8 bits of precision: correct results are within 5e-3 of float64,
and the error of a wrong result is as large as the result."""
KERNELS = ("auto", "sdpa")
PARTS = ("output", "query", "key", "value")

Sample = tuple[Piece, ...]


@dataclass(frozen=True)
class Case:
    name: str
    samples: list[Sample]
    heads: int
    kv_heads: int
    head_size: int
    causal: bool

    @property
    def tokens(self) -> int:
        return sum(piece.length for sample in self.samples for piece in sample)


def cases(gpu: bool) -> list[Case]:
    rows = [(Piece(length),) for length in ([1300, 37, 900, 2400, 5, 1023, 640, 1887] if gpu else [13, 3, 9])]
    windows = [(Piece(length),) for length in ([64] * 200 + [32, 16, 8] * 20 + [4] * 9 if gpu else [4, 4, 2])]
    long, short = (1200, 150) if gpu else (9, 4)
    pairs = [(Piece(long), Piece(short, long), Piece(2 * short, long))] * 3
    return [
        Case("decoder of Qwen2.5-VL-3B", rows, 16, 2, 128, causal=True),
        Case("decoder, pairs of answers", pairs, 16, 2, 128, causal=True),
        Case("tower of Qwen2.5-VL, whole pictures", rows, 16, 16, 80, causal=False),
        Case("tower of Qwen2.5-VL, windows", windows, 16, 16, 80, causal=False),
        Case("tower of Qwen3-VL", rows, 16, 16, 72, causal=False),
    ]


def measure(case: Case, device: torch.device) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    heads = (case.heads, case.kv_heads, case.kv_heads)
    drawn = [torch.randn(1, count, case.tokens, case.head_size, generator=generator) for count in heads]
    given = [tensor.to(device, torch.bfloat16).requires_grad_() for tensor in drawn]
    weights = torch.randn(1, case.tokens, case.heads, case.head_size, generator=generator).to(device, torch.bfloat16)
    pieces = segments_of_samples(case.samples).to(device)
    module = torch.nn.Module()

    def attend(kernel: str) -> list[torch.Tensor]:
        output, _ = packed_attention(module, *given, None, pieces, is_causal=case.causal, kernel=kernel)
        return [output, *torch.autograd.grad((output * weights).sum(), given)]

    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    output = one_by_one(exact, case)
    expected = [output, *torch.autograd.grad((output * weights.double()).sum(), exact)]
    told: dict[str, Any] = {
        "tokens": case.tokens, "heads": case.heads, "kv_heads": case.kv_heads, "head_size": case.head_size,
        "causal": case.causal,
    }  # fmt: skip
    for kernel in KERNELS:
        errors = [relative_error(*pair) for pair in zip(attend(kernel), expected, strict=True)]
        milliseconds = time_of(lambda kernel=kernel: attend(kernel), device)
        told[kernel] = {"errors": dict(zip(PARTS, errors, strict=True)), "milliseconds": milliseconds}
    worst = max(max(told[kernel]["errors"].values()) for kernel in KERNELS)
    return told | {"right": worst < WORST}


def one_by_one(tensors: list[torch.Tensor], case: Case) -> torch.Tensor:
    """Compute the attention of each piece separately, together with the context of its sample that it attends to."""
    query, key, value = tensors
    key, value = (x.repeat_interleave(case.heads // case.kv_heads, dim=1) for x in (key, value))
    parts = []
    for own, context in _places(case.samples):
        seen = [torch.cat([x[:, :, context], x[:, :, own]], dim=2) for x in (query, key, value)]
        attended = F.scaled_dot_product_attention(*seen, is_causal=case.causal)
        parts.append(attended[:, :, context.stop - context.start :])
    return torch.cat(parts, dim=2).transpose(1, 2)


def _places(samples: list[Sample]) -> Iterator[tuple[slice, slice]]:
    """Return the positions of each piece and of its context in the packed row."""
    begin = 0
    for sample in samples:
        start = begin
        for length, context in sample:
            yield slice(start, start + length), slice(begin, begin + context)
            start += length
        begin = start


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return ((found - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def time_of(work: Callable[[], Any], device: torch.device, times: int = 10) -> float:
    """Return the time in milliseconds, measured after three warm-up runs."""
    for _ in range(3):
        work()
    if device.type == "cpu":
        began = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - began) * 1e3 / times
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results.add_output(parser)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict[str, Any] = {"worst_allowed": WORST, "cases": {}}
    for case in cases(device.type == "cuda"):
        row = result["cases"][case.name] = measure(case, device)
        worst = {kernel: max(row[kernel]["errors"].values()) for kernel in KERNELS}
        told = ", ".join(f"{kernel} {worst[kernel]:.1e} in {row[kernel]['milliseconds']:.2f} ms" for kernel in KERNELS)
        print(f"{case.name}, heads of {case.head_size}: {told}{'' if row['right'] else ', WRONG'}", flush=True)
        results.write(result, given.output)
    if not all(row["right"] for row in result["cases"].values()):
        raise SystemExit("A kernel computes something else.")


if __name__ == "__main__":
    main()
