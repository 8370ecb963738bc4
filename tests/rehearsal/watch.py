"""Watches every operation on the fake GPU, and records what a real GPU would refuse, synchronize for or compute slowly.

Fake tensors check shapes and devices themselves. They accept inputs that only a kernel refuses, and compute nothing, so
that nothing ever waits for them. This module records both.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

HALVES = (torch.bfloat16, torch.float16)
"""The 16-bit dtypes."""
_PRODUCTS = {
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "convolution", "convolution_backward", "dot", "linear", "mm",
    "mv", "_grouped_mm",
}  # fmt: skip
_ATTENTION = {"_varlen_attn", "_varlen_attn_backward"}
_ASKING = {
    "_local_scalar_dense", "_unique", "_unique2", "bincount", "equal", "is_nonzero", "masked_select", "nonzero",
    "repeat_interleave", "unique_consecutive", "unique_dim",
}  # fmt: skip
"""Operations whose result, or its size, is a value that the host must read."""
_ROOT = Path(__file__).parents[2]
_HERE = str(Path(__file__).parent)


class Note(NamedTuple):
    phase: str
    """The phase of the run: training, evaluation, or the preparation."""
    what: str
    where: str
    """`file:function` of the operation. If it is not in this project, the project's function that called it is
    added."""

    def __str__(self) -> str:
        return f"{self.phase}: {self.what}, {self.where}"


@dataclass
class Seen:
    """The records of one case."""

    complaints: Counter[Note] = field(default_factory=Counter)
    """Operations that are wrong on a GPU."""
    waits: Counter[Note] = field(default_factory=Counter)
    """Operations for which the host waits for the device, or for a copy."""
    products: Counter[str] = field(default_factory=Counter)
    """Matrix products by the dtypes of their factors."""
    ops: Counter[str] = field(default_factory=Counter)
    """Operations on the GPU by name."""
    casts: int = 0
    cast_bytes: int = 0
    """Bytes that casts read and write."""


class Watch(TorchDispatchMode):
    """A mode that must be entered after the fake mode, so that it sees operations first."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()
        self._phase = "training"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record operations in this block under the given phase."""
        before, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = before

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is torch.ops.prim.device.default:  # as frequent as all other operations together
            (tensor,) = arguments
            return torch.device("meta") if tensor.fake_mode.in_kernel_invocation else tensor.fake_device
        keywords = keywords or {}
        tensors = [*_tensors(arguments), *_tensors(keywords.values())]
        on_gpu = [tensor for tensor in tensors if _device(tensor) == "cuda"]
        name = function.overloadpacket.__name__
        if on_gpu:
            self.seen.ops[name] += 1
            self._check_devices(name, tensors)
            if name in _PRODUCTS:
                self._count_product(function, arguments, tensors)
            elif name in _ATTENTION:
                self._check_attention(function, arguments, keywords)
            elif name in _ASKING:
                return self._ask(function, arguments, keywords)
        if name == "addmm" and function._overloadname == "dtype_out":
            return keywords["out"]  # before torch 2.12, fake tensors treat the dtype as a factor
        if name == "_grouped_mm" and {tensor.dtype for tensor in tensors[:2]} in ({torch.float16}, {torch.float32}):
            # In torch 2.11, fake tensors support it only in bfloat16, while the device supports these dtypes too.
            first, second, *rest = arguments
            return function(first.bfloat16(), second.bfloat16(), *rest, **keywords).to(first.dtype)
        result = function(*arguments, **keywords)
        if name in ("_to_copy", "copy_", "_foreach_copy_"):
            given = _given(function, arguments, keywords)
            sources, targets = given.get("src", given["self"]), result if name == "_to_copy" else given["self"]
            if name != "_foreach_copy_":
                sources, targets = [sources], [targets]
            for source, target in zip(sources, targets, strict=True):
                self._note_copy(source, target, given.get("non_blocking", False))
        return result

    def _complain(self, what: str) -> None:
        self.seen.complaints[Note(self._phase, what, _place())] += 1

    def _wait(self, what: str) -> None:
        self.seen.waits[Note(self._phase, what, _place())] += 1

    def _check_devices(self, name: str, tensors: list[torch.Tensor]) -> None:
        """Check devices. A scalar tensor may be on the host, but indices there would be copied, which synchronizes."""
        apart = any(_device(tensor) == "cpu" and tensor.dim() for tensor in tensors)
        if apart and name not in ("copy_", "_foreach_copy_"):
            self._complain(f"{name} of tensors on the device and on the host")

    def _count_product(self, function, arguments: tuple, tensors: list[torch.Tensor]) -> None:
        name = function.overloadpacket.__name__
        if "dtype" in function._overloadname:  # the addend and the sum may be wider than the factors
            tensors = [argument for argument in arguments[1:] if isinstance(argument, torch.Tensor)]
        types = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        told = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
        self.seen.products[told] += 1
        if len(types) > 1 or not types <= set(HALVES):
            self._complain(f"{name} of {told}")
        # GroupedBlas.cpp has a kernel only for bfloat16. For other dtypes, the host reads the number of rows of each
        # expert.
        if name == "_grouped_mm" and types != {torch.bfloat16}:
            self._wait(f"a list of sizes, by _grouped_mm of {told}")

    def _check_attention(self, function, arguments: tuple, keywords: dict[str, Any]) -> None:
        """Check the requirements of mha_varlen_fwd and mha_varlen_bwd in torch's flash_api.cpp, and the alignment that
        loads of 16 bytes assume."""
        given, name = _given(function, arguments, keywords), function.overloadpacket.__name__
        states = {part: given[part] for part in ("query", "key", "value")}
        states |= {part: given[part] for part in ("grad_out", "out") if part in given}
        types = {tensor.dtype for tensor in states.values()}
        if len(types) > 1 or not types <= set(HALVES):
            self._complain(f"{name} of {', '.join(f'{part} in {tensor.dtype}' for part, tensor in states.items())}")
        for part, tensor in states.items():
            if tensor.dim() != 3 or tensor.shape[-1] % 8 or tensor.shape[-1] > 256:
                self._complain(f"{name}: {part} has the shape {list(tensor.shape)}")
            if tensor.stride(-1) != 1:
                self._complain(f"{name}: {part} has a last dimension that is not contiguous")
            if any(stride % 8 for stride in tensor.stride()[:-1]) or tensor.storage_offset() % 8:
                self._complain(f"{name}: {part} has rows that begin at no multiple of 16 bytes")
        query, key, value = (given[part] for part in ("query", "key", "value"))
        if key.shape != value.shape or query.shape[1] % key.shape[1] or query.shape[2] != key.shape[2]:
            self._complain(f"{name}: shapes {[list(part.shape) for part in (query, key, value)]}")
        starts, seen = given["cu_seq_q"], given["cu_seq_k"]
        for boundaries in (starts, seen):
            if boundaries.dtype != torch.int32 or _device(boundaries) != "cuda" or not boundaries.is_contiguous():
                self._complain(f"{name}: boundaries in {boundaries.dtype} on {_device(boundaries)}")
        if starts.shape != seen.shape or starts.dim() != 1 or len(starts) < 2:
            self._complain(f"{name}: boundaries of the shapes {list(starts.shape)} and {list(seen.shape)}")

    def _ask(self, function, arguments: tuple, keywords: dict[str, Any]) -> Any:
        """Return an answer for operations that read a value. An operation whose output size is unknown raises an error
        of the fake mode."""
        match function.overloadpacket.__name__:
            case "_local_scalar_dense":
                self._wait("a number, by .item()")
                # The answer means that something was evaluated, and that no gradient is infinite.
                answer = 0 if _is_below("/torch/amp/grad_scaler.py") else 1
                return float(answer) if arguments[0].is_floating_point() else answer
            case "is_nonzero" | "equal" as name:
                self._wait(f"a number, by {name}")
                return True
            case name:
                self._wait(f"a number, by {name}")
                return function(*arguments, **keywords)

    def _note_copy(self, source: torch.Tensor, target: torch.Tensor, non_blocking: bool) -> None:
        match _device(source), _device(target):
            case "cuda", "cpu":
                self._wait("a copy to the host")
            case "cpu", "cuda" if not non_blocking:
                self._wait("a blocking copy to the device")
            case "cpu", "cuda" if not hasattr(source, "in_pinned_memory") and source.dim():
                self._wait("a copy from memory that is not pinned")
            case "cuda", "cuda" if source.dtype != target.dtype:
                self.seen.casts += 1
                self.seen.cast_bytes += source.numel() * (source.element_size() + target.element_size())


def _tensors(values) -> list[torch.Tensor]:
    """Return the tensors of an operation, including those in lists."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [part for part in value if isinstance(part, torch.Tensor)]
    return found


def _device(tensor: torch.Tensor) -> str:
    return (tensor.fake_device if isinstance(tensor, FakeTensor) else tensor.device).type


def _given(function, arguments: tuple, keywords: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by name."""
    return dict(zip((argument.name for argument in function._schema.arguments), arguments, strict=False)) | keywords


def _place() -> str:
    """Return the place of an operation. In a backward pass, the stack begins where the engine calls Python, so the
    differentiated operation is named instead."""
    frame, others = sys._getframe(1), []
    while frame is not None:
        file = frame.f_code.co_filename
        place = f"{_short(file)}:{frame.f_code.co_qualname}"
        if place.startswith("qwenvl_train/"):
            return " from ".join([*others[:1], place])
        if file.startswith(_HERE) and file != __file__:
            break  # the caller of the project's code
        if file != __file__ and "/torch/" not in file and "/site-packages/" in file:
            others.append(place)
        frame = frame.f_back
    node = torch._C._current_autograd_node()
    return others[0] if others else f"the backward pass of {node.name()}" if node else "torch alone"


def _is_below(file: str) -> bool:
    """Return whether a function of this file is in the call stack."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.endswith(file):
        frame = frame.f_back
    return frame is not None


def _short(file: str) -> str:
    path = Path(file)
    if path.is_relative_to(_ROOT) and "site-packages" not in path.parts:
        return str(path.relative_to(_ROOT))
    return file.partition("/site-packages/")[2] or file
