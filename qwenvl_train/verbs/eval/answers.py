"""The answers of one model to the held-out samples: those that its folder has, and those that are still missing."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from accelerate import PartialState

from qwenvl_train.config.inference import run_folder_of
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.evaluation.answering import Row, samples_to_answer
from qwenvl_train.families.family import Family
from qwenvl_train.run.answers_folder import AnswersFolder
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.generating import Generation, generate_missing, inference_context, missing_in, origins_of
from qwenvl_train.run.held_out import split
from qwenvl_train.run.rows import open_rows
from qwenvl_train.verbs.eval.settings import EvalVerbConfig


@dataclass(frozen=True)
class Answers:
    """The answers of one model."""

    model: str
    """The path of the model, as it is shown."""
    family: Family
    folder: AnswersFolder
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
    context = inference_context(config, family, precision, state)
    rows = _held_out(context)
    chosen = samples_to_answer(rows, config.eval.samples, config.seed)
    settings = _settings(context, rows)
    folder = AnswersFolder(_folder(config, settings), "eval.to", "predictions")
    missing = missing_in(folder, settings, chosen, state)
    start = monotonic()
    limits = Generation(config.eval.max_new_tokens, config.eval.batch_size)
    problems, generated = generate_missing(context, rows, missing, folder, limits)
    answered = {rows[0]["index"]: rows for rows in folder.stored()} if context.is_main else {}
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


def _held_out(context: RunContext) -> Rows:
    config, renderer, state = context.config, context.renderer, context.state
    if config.data.eval_share is None:
        return open_rows(config, "data.eval", renderer, state)
    return split(config, open_rows(config, "data.train", renderer, state), state)[1]


def _settings(context: RunContext, rows: Rows) -> dict[str, Any]:
    """Return everything that the answers follow from, as plain data."""
    config = context.config
    assert isinstance(config, EvalVerbConfig)
    return {
        **origins_of(context, rows),
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
