"""Compares an export with the run, before it is kept: its weights in files, and its logits and answers as another
process computes them with plain transformers."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.model.adapter_files import lora_tensors
from qwenvl_train.model.attention import set_attention
from qwenvl_train.model.build import base_model, build_for_inference
from qwenvl_train.model.merge import HEAD, merged_in_place, published_weights, use_names_of
from qwenvl_train.model.processor import load_processor
from qwenvl_train.model.published import left_out, tensors_in
from qwenvl_train.reporting.bar import counted
from qwenvl_train.reporting.wording import many
from qwenvl_train.verbs.export import reload
from qwenvl_train.verbs.export.prompts import Prompt, Prompts, prompts_for
from qwenvl_train.verbs.export.source import Source
from qwenvl_train.verbs.export.writing import Parts

LOGITS = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}
"""The largest difference of a logit, as a share of the largest logit of its row, by the type of the written weights.
Both sides compute in float32, so only the rounding of trained weights and the order of sums differ."""
LOGITS_OF_EXPERTS = LOGITS | {"fp16": 2e-2, "bf16": 0.1}
"""The same for a mixture of experts, where rounding may route a token to another expert (6.4 % in a tiny model)."""
WEIGHTS = {"fp32": 1e-6, "fp16": 2**-10, "bf16": 2**-7}
"""The largest difference of a weight from the run's, relative to itself (fp32: to the largest weight of its tensor),
which is one step between neighbouring numbers. On one device, no weight differs."""
_MISROUNDED = 0.01
"""The largest share of the weights of a tensor that may be rounded to the other neighbour."""
_NEW_TOKENS = 64


@dataclass(frozen=True)
class Verified:
    rows: str
    """Says which rows were compared."""
    tensors: int
    weights: int
    """The number of weights that are not exactly the run's, rounded."""
    logit: float
    """The largest difference of a logit, as a share of the largest logit of its row."""
    allowed: float
    same: int
    answers: int
    """The number of answers. Those that are not the same part where two tokens are equally likely."""
    precision: str


class Mismatch(UserError):
    """The export is not the model of the run."""


@dataclass(frozen=True)
class _Result:
    logits: torch.Tensor
    answer: torch.Tensor
    scores: torch.Tensor | None = None
    """The logits of the answer's tokens."""


def verify(source: Source, parts: Parts, family: Family) -> Verified:
    """Compare an export with its run.

    Raises:
        Mismatch: If it is another model.
    """
    refuse_other_names(source, parts)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prompts, own, inexact = _of_run(source, parts, family, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    reloaded = _reloaded(source, parts, prompts, device)
    logits = LOGITS_OF_EXPERTS if family.expert_weights else LOGITS
    allowed = logits[source.dtype if parts.model else "fp32"]
    worst, same = 0.0, 0
    for row, (mine, theirs) in enumerate(zip(own, reloaded, strict=True), start=1):
        largest = float(mine.logits.abs().max())
        worst = max(worst, _difference(mine.logits, theirs.logits) / largest)
        if not worst <= allowed:
            raise Mismatch(
                f"the logits of row {row} differ from the run's by {worst:.1%} of the largest one; {allowed:.2%} are "
                f"allowed for {source.dtype}"
            )
        same += _same_answer(mine, theirs.answer, 2 * allowed * largest, row)
    tensors = sum(len(_stored(folder)) for folder in parts.all)
    return Verified(prompts.words, tensors, inexact, worst, allowed, same, len(own), source.dtype)


def refuse_other_names(source: Source, parts: Parts) -> None:
    """Raise Mismatch unless a model has exactly the tensors of the base model, by name and shape."""
    if parts.model is None:
        return
    written, base = tensors_in(parts.model), source.tensors
    for name in sorted(base.keys() | written):
        if name not in written:
            raise Mismatch(f"{name} is missing, which is in {base[name].file} of the base model")
        if name not in base:
            raise Mismatch(f"{name} in {written[name].file} is not in the base model")
        if written[name].shape != base[name].shape:
            raise Mismatch(f"{name} in {written[name].file} has shape {written[name].shape}, not {base[name].shape}")


def _of_run(source: Source, parts: Parts, family: Family, device: torch.device) -> tuple[Prompts, list[_Result], int]:
    """Return the prompts and what the run's model makes of them, and compare its weights with the written ones."""
    config = source.config
    processor = load_processor(config.model, family)
    prompts = prompts_for(config, processor, family)
    with _exact_products():
        model = build_for_inference(config, family, processor, "fp32", device)
        own = [_result(model, prompt) for prompt in counted(prompts.items, "answering", len(prompts.items))]
        inexact = _compare_weights(source, parts, model)
    return prompts, own, inexact


@contextmanager
def _exact_products() -> Iterator[None]:
    """Compute without TF32, which would hide differences between weights."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


@torch.no_grad()
def _result(model: Any, prompt: Prompt) -> _Result:
    base = base_model(model)
    row = {
        name: value.to(base.device) if hasattr(value, "to") else value
        for name, value in prompt.batch.items()
        if name != "labels"
    }
    states = base.base_model(**row)[0]
    predictors = prompt.plain["predictors"].to(states.device)
    logits = base.get_output_embeddings()(states.index_select(0, predictors))
    return _Result(logits.cpu(), *_answer(model, prompt))


def _answer(model: Any, prompt: Prompt) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens that the run's model answers, and their logits."""
    base = base_model(model)
    given = {name: tensor.to(base.device) for name, tensor in prompt.plain.items()}
    packed = base.config._attn_implementation
    set_attention(base, "sdpa")  # packed attention does not support a cache
    try:
        tokens, scores = reload.answer(model, given, _NEW_TOKENS)
    finally:
        set_attention(base, packed)
    return tokens.cpu(), scores.cpu()


def _compare_weights(source: Source, parts: Parts, model: Any) -> int:
    """Return the number of written weights that are not exactly those of the run, rounded. `model` has no adapters
    afterwards.

    Raises:
        Mismatch: If a weight differs by more than a rounding.
    """
    if parts.adapter:
        assert source.adapter is not None
        stored, expected = load_file(parts.adapter / "adapter_model.safetensors"), lora_tensors(source.adapter)
        for name in sorted(stored.keys() | expected):
            if name not in stored or name not in expected or not torch.equal(stored[name], expected[name]):
                raise Mismatch(f"{name} of the adapter is not that of the run")
    if parts.model is None:
        return 0
    if source.adapter:
        model = merged_in_place(model) if source.config.export.form == "merged" else model.unload()
    else:
        use_names_of(source.base, model)
    inexact = 0
    expected = published_weights(model, head=HEAD in source.tensors) | left_out(source.base_folder, source.tensors)
    written = tensors_in(parts.model)
    for name, tensor in counted(written.items(), "comparing weights", len(written)):
        with safe_open(parts.model / tensor.file, "pt") as file:
            mine = file.get_tensor(name)
        inexact += _inexact(name, mine, expected.pop(name).cpu(), source.dtype)
    return inexact


def _inexact(name: str, written: torch.Tensor, expected: torch.Tensor, precision: str) -> int:
    """Return how many weights of a tensor are not the expected ones, rounded. Raise Mismatch if this is not due to
    rounding."""
    wrong = int((written != expected.to(written.dtype)).sum())
    if wrong:
        apart = (written.float() - expected).abs()
        scale = expected.abs() if precision != "fp32" else expected.abs().max()
        numbers = torch.finfo(written.dtype)
        beyond = int((~(apart <= WEIGHTS[precision] * scale + numbers.smallest_normal * numbers.eps)).sum())
        if beyond or wrong > max(1, _MISROUNDED * written.numel()):
            raise Mismatch(
                f"{name} is not that of the run: {many(wrong, 'weight')} of {written.numel():,} "
                f"{'is' if wrong == 1 else 'are'} different, by up to {float(apart.max()):.2g}"
            )
    return wrong


def _reloaded(source: Source, parts: Parts, prompts: Prompts, device: torch.device) -> list[_Result]:
    """Return what another process makes of the prompts with plain transformers."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.safetensors", Path(folder) / "outputs.safetensors"
        rows = enumerate(prompts.items)
        tensors = {f"{row}.{name}": tensor for row, one in rows for name, tensor in one.plain.items()}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, inputs)
        job = {
            "model": str((parts.model or source.base_folder).absolute()),
            "adapter": str(parts.adapter.absolute()) if parts.adapter else None,
            "processor": str(parts.processor.absolute()),
            "inputs": str(inputs),
            "outputs": str(outputs),
            "rows": len(prompts.items),
            "device": str(device),
            "new_tokens": _NEW_TOKENS,
        }
        if problems := in_new_process(job, Path(folder) / "job.json"):
            raise Mismatch(f"plain transformers did not take all weights: {problems[0]}")
        found = load_file(outputs)
    return [_Result(found[f"{row}.logits"], found[f"{row}.answer"]) for row in range(len(prompts.items))]


def in_new_process(job: dict[str, Any], file: Path) -> list[str]:
    """Carry out a job of reload.py in a process of its own. Return the problems that it found."""
    file.write_text(json.dumps(job), encoding="utf-8")
    # -P keeps the modules beside the program from being imported.
    done = subprocess.run([sys.executable, "-P", reload.__file__, str(file)], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Mismatch(f"plain transformers cannot load it: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")


def _same_answer(own: _Result, answer: torch.Tensor, tie: float, row: int) -> bool:
    """Return whether two answers are the same. Raise Mismatch if they part where the run prefers its own token by more
    than `tie`."""
    if torch.equal(own.answer, answer):
        return True
    assert own.scores is not None
    shorter = min(len(own.answer), len(answer))
    apart = (own.answer[:shorter] != answer[:shorter]).nonzero()
    place = int(apart[0]) if len(apart) else shorter - 1
    scores = own.scores[place]
    margin = float(scores[own.answer[place]] - scores[answer[place]])
    if not len(apart) or margin > tie:
        raise Mismatch(f"the answer to row {row} is another than the run's from token {place + 1} on")
    return False


def _stored(folder: Path) -> list[str]:
    names: list[str] = []
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            names += opened.keys()
    return names
