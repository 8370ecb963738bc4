"""Deliberate mistakes that a GPU would refuse or synchronize for. The rehearsal must report each of them."""

from collections.abc import Callable

import torch
from torch.nn.attention.varlen import varlen_attn


def float32_experts() -> None:
    states, experts = _on_gpu(8, 16, dtype=torch.float32), _on_gpu(2, 16, 16, dtype=torch.float32)
    torch._grouped_mm(states, experts, offs=_boundaries(2))


def float32_product() -> None:
    _on_gpu(8, 8, dtype=torch.float32) @ _on_gpu(8, 8, dtype=torch.float32)


def product_of_two_types() -> None:
    torch.mm(_on_gpu(8, 8), _on_gpu(8, 8, dtype=torch.float16))


def index_on_the_host() -> None:
    _on_gpu(8, 8)[torch.tensor([1, 3])]


def two_devices() -> None:
    _on_gpu(8, 8) + torch.ones(8, 8)


def number() -> None:
    _on_gpu(8).sum().item()


def copy_to_the_host() -> None:
    _on_gpu(8).cpu()


def blocking_copy() -> None:
    torch.ones(8).to("cuda")


def copy_of_memory_that_is_not_pinned() -> None:
    torch.ones(8).to("cuda", non_blocking=True)


def attention_in_float32() -> None:
    _attention(_on_gpu(8, 2, 16, dtype=torch.float32))


def attention_with_odd_heads() -> None:
    _attention(_on_gpu(8, 2, 12))


def attention_with_heads_apart() -> None:
    _attention(_on_gpu(8, 16, 2).transpose(1, 2))


def attention_with_rows_between_16_bytes() -> None:
    _attention(_on_gpu(8, 2, 20)[..., :16])


def attention_with_boundaries_in_int64() -> None:
    _attention(_on_gpu(8, 2, 16), _boundaries(3).long())


def backward_in_float32() -> None:
    """The matrix product of the forward pass is in 16 bits, but that of the backward pass is not."""
    _Widening.apply(_on_gpu(8, 8).requires_grad_()).sum().backward()


class _Widening(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x @ x

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return (gradient.float() @ x.float()).to(x.dtype)


BROKEN: dict[Callable[[], None], str] = {
    float32_experts: "_grouped_mm of float32",
    float32_product: "mm of float32",
    product_of_two_types: "mm of bfloat16 and float16",
    index_on_the_host: "index of tensors on the device and on the host",
    two_devices: "add of tensors on the device and on the host",
    number: "a number, by .item()",
    copy_to_the_host: "a copy to the host",
    blocking_copy: "a blocking copy to the device",
    copy_of_memory_that_is_not_pinned: "a copy from memory that is not pinned",
    attention_in_float32: "_varlen_attn of query in torch.float32",
    attention_with_odd_heads: "query has the shape [8, 2, 12]",
    attention_with_heads_apart: "query has a last dimension that is not contiguous",
    attention_with_rows_between_16_bytes: "query has rows that begin at no multiple of 16 bytes",
    attention_with_boundaries_in_int64: "boundaries in torch.int64 on cuda",
    backward_in_float32: "mm of float32",
}
"""The expected complaint for each mistake."""


def _on_gpu(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype, device="cuda")


def _boundaries(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.int32, device="cuda")


def _attention(states: torch.Tensor, boundaries: torch.Tensor | None = None) -> None:
    boundaries = _boundaries(3) if boundaries is None else boundaries
    varlen_attn(states, states, states, boundaries, boundaries, 4, 4)
