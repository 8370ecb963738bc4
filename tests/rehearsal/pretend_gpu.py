"""Makes this process pretend to have a GPU. Tensors on it are fake tensors. This cannot be undone.

FakeTensorMode supports `device="cuda"` without a driver, but some code queries the device nevertheless: the backward
pass asks torch's CUDA hooks whether the device has a context, Python asks torch.cuda for the GPU's capabilities, the
data loader pins memory, and Triton launches kernels. This module answers all of these.
"""

import atexit
import ctypes
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import torch
import torch._subclasses.fake_tensor as fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.data import DataLoader

CAPABILITY = (9, 0)
NAME = "NVIDIA H100 80GB HBM3"

_TABLE_ENTRIES = 80
"""An upper bound for the entries of the hooks' table. Memory behind the table is copied too, and never used."""
_KEPT: list[object] = []
"""Objects of which torch holds only a pointer."""


class CannotPretend(Exception):
    """Raised if the installed torch differs from the version that this module was written for."""


def pretend_a_gpu() -> None:
    if not sys.platform.startswith("linux"):
        raise CannotPretend("torch's CUDA hooks are replaced on Linux only")
    if torch.cuda.is_available():
        raise CannotPretend("there is a GPU; CUDA_VISIBLE_DEVICES= hides it")
    if not hasattr(torch._C, "_ensureCUDADeviceGuardSet"):
        raise CannotPretend("torch has no _ensureCUDADeviceGuardSet, without which devices on CUDA cannot be guarded")
    torch._C._ensureCUDADeviceGuardSet()
    _answer_that_no_context_exists()
    fake_tensor.init_gpu_context = lambda device: None
    FakeTensorMode.avoid_device_init = True  # otherwise torch.tensor(…, device="cuda") initializes CUDA
    torch.nn.Module._apply = _apply_to_fake_weights
    _answer_for_torch_cuda()
    _leave_out_triton()
    _load_real_rows()
    _check()


def _answer_that_no_context_exists() -> None:
    """Make at::getCUDAHooks().hasPrimaryContext(device) return false, instead of raising an error about a missing
    driver.

    The hooks are one C++ object, whose first word points to its virtual function table. This function replaces the
    pointer by one to a copy of the table, in which one entry is a function of this module. The index of the entry is
    read from the header files of the installed torch. The name of the object's type confirms that the header describes
    it.
    """
    function = "_ZN2at6detail12getCUDAHooksEv"
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    if not hasattr(library, function):
        raise CannotPretend(f"libtorch_cpu.so has no {function}")
    get_hooks = getattr(library, function)
    get_hooks.restype = ctypes.c_void_p
    word, hooks, entry = ctypes.sizeof(ctypes.c_void_p), get_hooks(), _entry_of("hasPrimaryContext")
    table = _word_at(hooks)
    type_name = ctypes.string_at(_word_at(_word_at(table - word) + word)).decode()
    if "CUDAHooks" not in type_name:
        raise CannotPretend(f"torch's CUDA hooks are a {type_name}")

    before = 2  # words that belong to the table, but precede its first entry
    copy = ctypes.create_string_buffer((before + _TABLE_ENTRIES) * word)
    ctypes.memmove(copy, table - before * word, len(copy))
    new_table = ctypes.addressof(copy) + before * word
    answer = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_byte)(lambda _, device: False)
    _set_word_at(new_table + entry * word, ctypes.cast(answer, ctypes.c_void_p).value)
    _set_word_at(hooks, new_table)
    _KEPT.extend((copy, answer))
    atexit.register(_set_word_at, hooks, table)  # torch's shutdown may use it after Python's


def _entry_of(function: str) -> int:
    """Return the index of a function in the table of AcceleratorHooksInterface, with which that of CUDAHooksInterface
    begins."""
    headers = Path(torch.__file__).parent / "include" / "ATen" / "detail"
    try:
        base = (headers / "AcceleratorHooksInterface.h").read_text(encoding="utf-8")
        derived = (headers / "CUDAHooksInterface.h").read_text(encoding="utf-8")
    except OSError as error:
        raise CannotPretend(f"torch's headers are not installed: {error}") from None
    names = re.findall(r"^\s*virtual\s[^;({]*?(~?\w+)\(", base, flags=re.MULTILINE)
    if not re.search(r"struct TORCH_API CUDAHooksInterface : AcceleratorHooksInterface \{", derived):
        raise CannotPretend("CUDAHooksInterface no longer derives from AcceleratorHooksInterface alone")
    if names[:1] != ["~AcceleratorHooksInterface"] or names.count(function) != 1:
        raise CannotPretend(f"AcceleratorHooksInterface no longer begins with its destructor, or has no {function}")
    return names.index(function) + 1  # the destructor takes two entries


def _word_at(address: int) -> int:
    return ctypes.c_void_p.from_address(address).value


def _set_word_at(address: int, value: int) -> None:
    ctypes.c_void_p.from_address(address).value = value


def _answer_for_torch_cuda() -> None:
    properties = SimpleNamespace(
        name=NAME, major=CAPABILITY[0], minor=CAPABILITY[1], total_memory=80 * 2**30, multi_processor_count=132,
        warp_size=32, max_threads_per_multi_processor=2048, shared_memory_per_block_optin=232448,
    )  # fmt: skip
    answers = {
        "is_available": True, "device_count": 1, "current_device": 0, "is_bf16_supported": True,
        "get_device_capability": CAPABILITY, "get_device_name": NAME, "get_device_properties": properties,
        "is_initialized": False, "synchronize": None, "empty_cache": None, "set_device": None, "_lazy_init": None,
        "max_memory_reserved": 0, "max_memory_allocated": 0, "memory_allocated": 0, "reset_peak_memory_stats": None,
        "is_current_stream_capturing": False, "manual_seed_all": None, "get_rng_state_all": [],
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, _always(answer))
    torch.cuda.device = lambda *_: nullcontext()
    torch.cuda.nvtx.range_push = torch.cuda.nvtx.range_pop = lambda *_: None


def _always(answer: object):
    return lambda *_, **__: answer


def _leave_out_triton() -> None:
    """Make `kernel[grid](…)` do nothing. The tensors that it would fill already exist."""
    try:
        from triton.runtime.autotuner import Autotuner, Heuristics
        from triton.runtime.jit import JITFunction
    except ImportError:
        return
    for launcher in (Autotuner, Heuristics, JITFunction):
        launcher.run = lambda *_, **__: None


def _load_real_rows() -> None:
    """Run data loaders outside of all modes, since they make rows on the host. Pinned tensors only report that they are
    pinned."""
    original = DataLoader.__iter__

    def iterate(self):
        with _disable_current_modes():
            rows = original(self)
        while True:
            with _disable_current_modes():
                try:
                    row = next(rows)
                except StopIteration:
                    return
            yield row

    DataLoader.__iter__ = iterate
    torch.accelerator.is_available = lambda: True
    torch.accelerator.current_accelerator = lambda *_, **__: torch.device("cuda")
    torch.Tensor.pin_memory = _pinned


def _pinned(tensor: torch.Tensor, *_: object) -> torch.Tensor:
    copy = tensor.clone()
    copy.in_pinned_memory = True
    return copy


def _apply_to_fake_weights(module: torch.nn.Module, change, recurse: bool = True) -> torch.nn.Module:
    """Make `Module._apply` create new parameters, since fake parameters cannot get new contents. Tied parameters stay
    tied."""
    known: dict[int, torch.nn.Parameter] = {}
    for part in module.modules() if recurse else (module,):
        for name, old in part._parameters.items():
            if old is not None:
                if id(old) not in known:
                    contents = old.detach()
                    changed = change(contents)
                    new = old if changed is contents else torch.nn.Parameter(changed, old.requires_grad)
                    known[id(old)] = known[id(new)] = new
                part._parameters[name] = known[id(old)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
    return module


def _check() -> None:
    """Check that a forward and a backward pass of one linear layer work and stay on the device."""
    try:
        with FakeTensorMode():
            layer = torch.nn.Linear(8, 8).to("cuda")
            layer(torch.ones(2, 8, device="cuda")).sum().backward()
            device = layer.weight.grad.device
    except Exception as error:
        raise CannotPretend(f"a backward pass on a GPU that is not there does not come through: {error}") from error
    if device != torch.device("cuda", 0):
        raise CannotPretend(f"gradients on cuda:0 come out on {device}")
