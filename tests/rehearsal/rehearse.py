"""Runs the training command on a fake GPU, to check devices, dtypes, kernel inputs and synchronizations, but no values.

    python -m tests.rehearsal.rehearse                       every case of cases.py, a line of JSON each
    python -m tests.rehearsal.rehearse 0 4 17                only those with these numbers
    python -m tests.rehearsal.rehearse qwen2_5_vl sft_full   one family and kind as a table, to compare before and after
    python -m tests.rehearsal.rehearse qwen3_vl sft_lora train.precision=fp16 train.liger=true

The command is the real one. All work on the host is real: models are loaded and rows are made. Work on the device runs
under FakeTensorMode. Where fake tensors would be written to files, `seams` replaces the code: features and
log-probabilities that are stored before a run are zeros, and checkpoints are not written.
"""

import gc
import json
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.rehearsal.broken import BROKEN
from tests.rehearsal.cases import FAMILIES, KINDS, Case, cases_by_pairs
from tests.rehearsal.material import save_checkpoint, save_rows
from tests.rehearsal.pretend_gpu import CannotPretend, pretend_a_gpu
from tests.rehearsal.watch import Note, Seen, Watch

STEPS = 2
"""In the second step, gradients and optimizer state already exist. One packed row has media, and the other has none."""


def rehearse(case: Case, checkpoint: Path, rows: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Run a case, and return its result."""
    from qwenvl_train.config.compose import compose
    from qwenvl_train.verbs.train import run

    method = "dpo" if case.kind.startswith("dpo") else "sft"
    settings = [
        *case.settings, f"model.path={checkpoint}", f"data.train={rows[method]}", f"output_dir={folder}",
        *([f"data.eval={rows[method]}"] if case.evaluates else []), "data.workers=0",
        "data.max_length=384", "data.pack_length=384",
        f"train.max_steps={STEPS}", "train.accumulation=1", "logging.wandb.mode=disabled", "logging.predictions=0",
    ]  # fmt: skip
    watch, error, started = Watch(), None, time.perf_counter()
    with seams(watch):
        try:
            run(compose(settings))
        except Exception as failure:
            error = _told(failure)
    return {"case": str(case), "error": error, "seconds": round(time.perf_counter() - started, 2)} | _line(watch.seen)


def rehearse_broken() -> Iterator[dict[str, Any]]:
    for broken, expected in BROKEN.items():
        watch, error = Watch(), None
        try:
            with FakeTensorMode(), watch:
                broken()
        except Exception as failure:
            error = str(failure)
        yield {"case": f"broken: {broken.__name__}", "expected": expected, "error": error} | _line(watch.seen)


@contextmanager
def seams(watch: Watch) -> Iterator[None]:
    """Replace the places where the real command moves data to the device or reads data from it."""
    from qwenvl_train.model import linear_attention, vision_features
    from qwenvl_train.run import preparing, reference_cache, vision_cache
    from qwenvl_train.training import broken_steps
    from qwenvl_train.training.trainer import VisionTrainer

    # Tensors in closures, such as an image's mean, become fake when they are combined with fake tensors.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    values, build_copy = reference_cache._values, reference_cache.build_copy

    class Trainer(VisionTrainer):
        def __init__(self, model: Any, arguments: Any, *parts: Any):
            arguments.eval_on_start = False  # evaluating after the run is enough
            with fake:
                super().__init__(model, arguments, *parts)

        def train(self, *arguments: Any, **keywords: Any):
            with fake, watch:
                return super().train(*arguments, **keywords)

        def evaluate(self, *arguments: Any, **keywords: Any):
            with watch.phase("evaluation"):
                return super().evaluate(*arguments, **keywords)

        def _save_checkpoint(self, *_: Any) -> None:
            """Skip the weights, since fake tensors have no values."""

    class VisionFeatureExtractor(vision_features.VisionFeatureExtractor):
        def __init__(self, *arguments: Any):
            with fake:
                super().__init__(*arguments)

        def __call__(self, *given: Any) -> torch.Tensor:
            with fake, watch, watch.phase("vision cache"):
                states = super().__call__(*given)
            return _zeros(states)

    def on_the_device(*arguments: Any):
        model = build_copy(*arguments)
        with fake:
            return model.to("cuda")

    def log_probabilities(*arguments: Any) -> dict[int, torch.Tensor]:
        with fake, watch, watch.phase("reference cache"):
            found = values(*arguments)
        return {sample: _zeros(part) for sample, part in found.items()}

    with ExitStack() as replaced:
        for module, name, stand_in in (
            (preparing, "VisionTrainer", Trainer),
            (broken_steps, "copied_later", lambda figures: lambda: [0.0] * len(figures)),
            (vision_cache, "VisionFeatureExtractor", VisionFeatureExtractor),
            (vision_features, "tower_digest", lambda *_: "rehearsed"),
            (reference_cache, "build_copy", on_the_device),
            (reference_cache, "_values", log_probabilities),
            (linear_attention, "_fla_kernels", lambda: linear_attention.Kernels(_convolution, _gated_delta_rule)),
        ):
            replaced.enter_context(patch.object(module, name, stand_in))
        yield


def _convolution(
    x: torch.Tensor, weight: torch.Tensor, bias: None, initial_state: torch.Tensor | None, activation: str, **borders
) -> tuple[torch.Tensor, None]:
    """Stand in for fla's kernel: results of the same sizes, to which every argument gets a gradient."""
    _check_borders(x, initial_state, **borders)
    before = 0 if initial_state is None else initial_state.sum().to(x.dtype)
    return x * weight.sum(1).to(x.dtype) + before, None


def _gated_delta_rule(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor,
    initial_state: torch.Tensor | None, output_final_state: bool, use_qk_l2norm_in_kernel: bool, **borders,
) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
    """Stand in for fla's kernel: results of the same sizes, to which every argument gets a gradient."""
    _check_borders(q, initial_state, **borders)
    before = 0 if initial_state is None else initial_state.sum().to(v.dtype)
    read = v * (beta * g)[..., None].to(v.dtype) + (q * k).sum().to(v.dtype) + before
    if not output_final_state:
        return read, None
    sizes = (len(borders["cu_seqlens"]) - 1, v.shape[2], k.shape[3], v.shape[3])
    return read, (k.sum() + v.sum()).float() + torch.zeros(sizes, device=v.device)


def _check_borders(
    x: torch.Tensor, initial_state: torch.Tensor | None, cu_seqlens: torch.Tensor, chunk_indices: torch.Tensor
) -> None:
    assert x.dtype in (torch.bfloat16, torch.float16)
    assert cu_seqlens.dtype == chunk_indices.dtype == torch.int64
    assert cu_seqlens.device == chunk_indices.device == x.device
    assert initial_state is None or len(initial_state) == len(cu_seqlens) - 1


def _zeros(fake: torch.Tensor) -> torch.Tensor:
    """Return real zeros of the same number and dtype."""
    return torch.zeros(tuple(fake.shape), dtype=fake.dtype)


def _told(failure: Exception) -> str:
    """Return the message of an error and the last functions of the project in its stack."""
    frames = [frame for frame in traceback.extract_tb(failure.__traceback__) if "qwenvl_train" in frame.filename]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames[-3:])]
    reason = str(failure).strip().splitlines() or [""]
    return f"{type(failure).__name__}: {reason[0][:300]}, at {', from '.join(places)}"


def _line(seen: Seen) -> dict[str, Any]:
    return {
        "ops": sum(seen.ops.values()),
        "attention_calls": seen.ops["_varlen_attn"],
        "casts": seen.casts,
        "cast_bytes": seen.cast_bytes,
        "products": dict(seen.products),
        "complaints": [[*note, times] for note, times in seen.complaints.items()],
        "waits": [[*note, times] for note, times in seen.waits.items()],
    }


def main(words: list[str]) -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    numbers = [int(word) for word in words if word.isdecimal()]
    tells = bool(words) and not numbers
    cases = _asked(words) if tells else cases_by_pairs()
    cases = [cases[number] for number in numbers] or cases
    try:
        pretend_a_gpu()
    except CannotPretend as reason:
        print(json.dumps({"skipped": str(reason)}), flush=True)
        return
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in () if tells else rehearse_broken():
        print(json.dumps(line), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        rows = save_rows(root / "rows")
        checkpoints = {family: save_checkpoint(family, root) for family in {case.family for case in cases}}
        gc.freeze()  # imported objects stay, and collecting them repeatedly takes as long as the cases
        for number, case in enumerate(cases):
            with redirect_stdout(sys.stderr):
                line = rehearse(case, checkpoints[case.family], rows, root / f"run-{number}")
            print(_table(line) if tells else json.dumps(line), flush=True)


def _asked(words: list[str]) -> list[Case]:
    """Parse the command line: names of families and kinds, and settings."""
    extra = tuple(word for word in words if "=" in word)
    families = [word for word in words if word in FAMILIES] or FAMILIES
    kinds = [word for word in words if word in KINDS] or KINDS
    if unknown := {*words} - {*extra, *FAMILIES, *KINDS}:
        sys.exit(f"no family and no kind: {', '.join(unknown)}; there are {', '.join([*FAMILIES, *KINDS])}")
    return [Case(family, kind, extra=extra) for family in families for kind in kinds]


def _table(line: dict[str, Any]) -> str:
    rows = []
    for name, value in line.items():
        match value:
            case dict():
                rows += [f"  {name}"] + [f"    {count:6,}  {what}" for what, count in sorted(value.items())]
            case list():
                rows += [f"  {name}"] + [f"    {times:6,}  {Note(*note)}" for *note, times in sorted(value)]
            case int():
                rows.append(f"  {name:16}{value:,}")
            case _:
                rows.append(value if name == "case" else f"  {name:16}{value}")
    return "\n".join(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
