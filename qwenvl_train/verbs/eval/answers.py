"""The answers of one model to the held-out samples: those that its folder has, and those that are still missing."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from accelerate import PartialState

from qwenvl_train.config.inference import run_folder_of
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.evaluation.answering import Row, answers_to, fitting_batch_size, groups_of, samples_to_answer
from qwenvl_train.evaluation.generation import AnswerGenerator
from qwenvl_train.families.family import Family
from qwenvl_train.model.autocast import autocast, autocast_to
from qwenvl_train.model.build import base_model, build_for_inference
from qwenvl_train.model.load import identity_of
from qwenvl_train.model.processor import load_processor
from qwenvl_train.reporting.bar import counting
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.held_out import split
from qwenvl_train.run.rows import make_renderer, open_rows
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.distributed.store import call_on_main
from qwenvl_train.training.distributed.workers import naming_dead_workers
from qwenvl_train.verbs.eval.folder import EvalFolder
from qwenvl_train.verbs.eval.settings import EvalVerbConfig


@dataclass(frozen=True)
class Answers:
    """The answers of one model."""

    model: str
    """The path of the model, as it is shown."""
    family: Family
    folder: EvalFolder
    rows: list[Row]
    """One row for each answer, in the order of the samples. Only the main process has them."""
    problems: list[Problem]
    """The samples that could not be decoded."""
    generated: int
    """Number of answers that were generated now, by all processes. The others were found in the folder."""
    seconds: float
    """Time that generating them took."""
    described: list[str]
    """A line for each data file."""
    asked: dict[str, Any]
    """Which samples were asked, and how: the settings that are the same for all models on the same samples."""


def answers_of(config: EvalVerbConfig, family: Family, precision: str, state: PartialState) -> Answers:
    """Return the answers of the model in model.path. All processes must call this together."""
    processor = load_processor(config.model, family)
    renderer = make_renderer(config, processor, family)
    context = RunContext(config, family, processor, renderer, precision, state, CpuGroup(state.num_processes))
    rows = _held_out(context)
    chosen = samples_to_answer(rows, config.eval.samples, config.seed)
    settings = _settings(context, rows)
    folder = EvalFolder(_folder(config, settings))
    _open(folder, settings, state)
    found = folder.answered()
    missing = [index for index in chosen if index not in found]
    state.wait_for_everyone()  # until all have read the folder
    start = monotonic()
    problems, generated = _generate(context, rows, missing, folder) if missing else ([], 0)
    (generated,), problems = context.cpu_group.sum([generated]), context.cpu_group.everything(problems)
    answered = folder.answered() if context.is_main else {}
    return Answers(
        config.model.path,
        family,
        folder,
        [row for index in chosen for row in answered.get(index, ())],
        problems,
        generated,
        monotonic() - start,
        rows.samples.describe(),
        {key: value for key, value in settings.items() if key != "model"},
    )


def _open(folder: EvalFolder, settings: dict[str, Any], state: PartialState) -> None:
    """Make the folder, and raise UserError on all processes if it cannot be used."""
    call_on_main(state, lambda: folder.open(settings))


def _held_out(context: RunContext) -> Rows:
    config, renderer, state = context.config, context.renderer, context.state
    if config.data.eval_share is None:
        return open_rows(config, "data.eval", renderer, state)
    return split(config, open_rows(config, "data.train", renderer, state), state)[1]


def _generate(context: RunContext, rows: Rows, missing: Sequence[int], folder: EvalFolder) -> tuple[list[Problem], int]:
    """Generate the missing answers. Return the samples that could not be decoded, and the number of answers, of this
    process."""
    config, device = context.config, context.device
    assert isinstance(config, EvalVerbConfig)
    model = build_for_inference(config, context.family, context.processor, context.precision, device)
    longest = int(rows.lengths.tokens[list(missing)].max()) + config.eval.max_new_tokens
    size = config.eval.batch_size
    if size == "auto":
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        size = fitting_batch_size(base_model(model), longest, free)
    groups = groups_of(rows, missing, size)[context.rank :: context.processes]
    generate = AnswerGenerator(model, context.family, context.processor.tokenizer, config.eval.max_new_tokens)
    problems: list[Problem] = []
    generated = done = 0
    answers = answers_to(rows, groups, generate, config.data.workers)
    with (
        naming_dead_workers(),
        autocast(device.type, autocast_to(config, context.precision)),
        counting("answering", sum(map(len, groups)), shown=context.is_main) as progress,
    ):
        for group, (found, broken) in zip(groups, answers, strict=True):
            folder.append(found, context.rank)
            problems += broken
            generated += len(found)
            done += len(group)
            progress(done)
    return problems, generated


def _settings(context: RunContext, rows: Rows) -> dict[str, Any]:
    """Return everything that the answers follow from, as plain data."""
    config = context.config
    assert isinstance(config, EvalVerbConfig)
    return {
        "model": identity_of(config.model),
        "quantize": config.model.quantize,
        "precision": context.precision,
        "rendered": rows.renderer.fingerprint(),
        "data": rows.samples.fingerprint(),
        "samples": config.eval.samples,
        "seed": config.seed if config.eval.samples else None,
        "max_new_tokens": config.eval.max_new_tokens,
    }


def _folder(config: EvalVerbConfig, settings: dict[str, Any]) -> Path:
    """Return the folder of the results. Without eval.to, its name tells the model and is the same again only for the
    same answers."""
    if config.eval.to is not None:
        return Path(config.eval.to)
    digest = digest_of(settings)
    above = run_folder_of(config.run) if config.run else Path(config.output_dir)
    return above / "eval" / f"{Path(config.model.path).name}-{digest}"


def digest_of(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
