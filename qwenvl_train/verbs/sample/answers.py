"""The answers to the rows of data.train: those that the folder has, and those that are still to be drawn."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

from accelerate import PartialState

from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.answering import samples_to_answer
from qwenvl_train.evaluation.drawing import Drawing
from qwenvl_train.families.family import Family
from qwenvl_train.run.answers_folder import AnswersFolder, StoredAnswers
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.generating import Generation, generate_missing, inference_context, missing_in, origins_of
from qwenvl_train.run.rows import open_rows
from qwenvl_train.training.distributed.store import call_on_main
from qwenvl_train.verbs.sample.endpoint import ask_endpoint
from qwenvl_train.verbs.sample.settings import SampleConfig


@dataclass(frozen=True)
class DrawnAnswers:
    """The answers to all rows."""

    context: RunContext
    samples: Rows
    folder: AnswersFolder
    problems: list[Problem]
    """The rows that cannot be used."""
    generated: int
    """Number of answers that were drawn now, by all processes. The others were found in the folder."""
    seconds: float
    """Time that drawing them took."""

    @cached_property
    def answers(self) -> StoredAnswers:
        """All answers. Only the main process may ask for them, which puts them into one file."""
        return self.folder.stored(self.config.sample.tries)

    @property
    def config(self) -> SampleConfig:
        assert isinstance(self.context.config, SampleConfig)
        return self.context.config

    @property
    def family(self) -> Family:
        return self.context.family

    @property
    def model(self) -> str:
        """The name of the model, as rows have it."""
        section = self.config.sample
        return section.endpoint.model or "" if section.engine == "endpoint" else self.config.model.path


def drawing_of(config: SampleConfig) -> Drawing:
    section = config.sample
    return Drawing(section.tries, section.temperature, section.top_p, section.top_k, config.seed)


def draw(config: SampleConfig, family: Family, precision: str, state: PartialState) -> DrawnAnswers:
    """Draw the answers that are missing. All processes must call this together."""
    context = inference_context(config, family, precision, state)
    call_on_main(state, lambda: refuse_pairs(config))
    rows = open_rows(config, "data.train", context.renderer, state)
    section, drawing = config.sample, drawing_of(config)
    assert section.to is not None
    folder = AnswersFolder(Path(section.to).expanduser(), "sample.to", "answers")
    wanted = samples_to_answer(rows, None, config.seed)
    missing = missing_in(folder, _settings(context, rows), wanted, state, section.tries)
    start = monotonic()
    if section.engine == "endpoint":
        problems, generated = ask_endpoint(context, rows, missing, folder, drawing, len(missing) < len(wanted))
    else:
        limits = Generation(section.max_new_tokens, section.batch_size, drawing)
        problems, generated = generate_missing(context, rows, missing, folder, limits)
    problems, seconds = [*rows.lengths.problems, *problems], monotonic() - start
    return DrawnAnswers(context, rows, folder, problems, generated, seconds)


def refuse_pairs(config: SampleConfig) -> None:
    """Raise UserError if a data file has preference pairs, also where the run has learned from pairs."""
    samples = Samples(config.data.train, "data.train", config.data.allow_remote, config.cache_folder)
    for name, indices in samples.files():
        if _format_of(samples, indices.start) == "preference":
            raise UserError(
                f"data.train: {name} has preference pairs, but sample needs rows with one answer, the right one; keep "
                "the question and the chosen answer of each pair."
            )


def _format_of(samples: Samples, index: int) -> str | None:
    try:
        return samples.format_of(index)
    except UserError:  # which is raised again when the row is read
        return None


def _settings(context: RunContext, rows: Rows) -> dict[str, Any]:
    """Return everything that the answers follow from, as plain data."""
    config = context.config
    assert isinstance(config, SampleConfig)
    section, origins = config.sample, origins_of(context, rows)
    if section.engine == "endpoint":  # whose weights and precision are not known here
        origins |= {"model": section.endpoint.model, "quantize": None, "precision": None}
    keys = ("engine", "tries", "temperature", "top_p", "top_k", "max_new_tokens")
    return {**origins, "seed": config.seed, **{key: getattr(section, key) for key in keys}}
