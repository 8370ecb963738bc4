"""The answers of one model to the samples of data files, shared among the processes, which keep them in a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import PartialState

from qwenvl_train.config.inference import InferenceConfig
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.evaluation.answering import answers_to, fitting_batch_size, groups_of
from qwenvl_train.evaluation.drawing import Drawing
from qwenvl_train.evaluation.generation import AnswerGenerator
from qwenvl_train.families.family import Family
from qwenvl_train.model.autocast import autocast, autocast_to
from qwenvl_train.model.build import base_model, build_for_inference
from qwenvl_train.model.load import identity_of
from qwenvl_train.model.processor import load_processor
from qwenvl_train.reporting.bar import counting
from qwenvl_train.run.answers_folder import AnswersFolder
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.distributed.store import call_on_main
from qwenvl_train.training.distributed.workers import naming_dead_workers


@dataclass(frozen=True)
class Generation:
    """How answers are generated."""

    max_new_tokens: int
    batch_size: int | Literal["auto"]
    """The number of samples that are answered together."""
    drawing: Drawing | None = None
    """How several answers to each request are drawn. With None, each has its most likely answer."""

    @property
    def tries(self) -> int:
        return self.drawing.tries if self.drawing else 1


def inference_context(config: InferenceConfig, family: Family, precision: str, state: PartialState) -> RunContext:
    processor = load_processor(config.model, family)
    renderer = make_renderer(config, processor, family, generates=True)
    return RunContext(config, family, processor, renderer, precision, state, CpuGroup(state.num_processes))


def origins_of(context: RunContext, rows: Rows) -> dict[str, Any]:
    """Return which model answers which rows, as plain data that changes when an answer may."""
    model = context.config.model
    return {
        "model": identity_of(model),
        "quantize": model.quantize,
        "precision": context.precision,
        "rendered": rows.renderer.fingerprint(),
        "data": rows.samples.fingerprint(),
    }


def missing_in(
    folder: AnswersFolder, settings: Mapping[str, Any], wanted: Sequence[int], state: PartialState, tries: int = 1
) -> list[int]:
    """Make the folder, or find it again, and return which of the samples it has no answers to. UserError is raised on
    all processes, which must call this together."""
    call_on_main(state, lambda: folder.open(settings))
    found = folder.stored(tries).indices
    state.wait_for_everyone()  # until all have read the folder
    return [index for index in wanted if index not in found]


def generate_missing(
    context: RunContext, rows: Rows, missing: Sequence[int], folder: AnswersFolder, limits: Generation
) -> tuple[list[Problem], int]:
    """Generate the missing answers. Return the samples that could not be decoded, and the number of answers, of all
    processes, which must call this together."""
    problems, generated = _generate(context, rows, missing, folder, limits) if missing else ([], 0)
    (generated,) = context.cpu_group.sum([generated])
    return context.cpu_group.everything(problems), generated


def _generate(
    context: RunContext, rows: Rows, missing: Sequence[int], folder: AnswersFolder, limits: Generation
) -> tuple[list[Problem], int]:
    """Generate the share of this process."""
    config, device = context.config, context.device
    model = build_for_inference(config, context.family, context.processor, context.precision, device)
    groups = groups_of(rows, missing, _batch_size(model, rows, missing, limits, device))
    groups = groups[context.rank :: context.processes]
    tokenizer, drawing = context.processor.tokenizer, limits.drawing
    generate = AnswerGenerator(model, context.family, tokenizer, limits.max_new_tokens, drawing=drawing)
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


def _batch_size(
    model: torch.nn.Module, rows: Rows, missing: Sequence[int], limits: Generation, device: torch.device
) -> int:
    """Return how many samples are answered together."""
    if limits.batch_size != "auto":
        return limits.batch_size
    longest = int(rows.lengths.tokens[list(missing)].max()) + limits.max_new_tokens
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return max(1, fitting_batch_size(base_model(model), longest, free) // limits.tries)
