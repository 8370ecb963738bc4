"""The training data of a run: samples that were all measured before the run, or a stream that is measured as it is
read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import Dataset, TensorDataset

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.batches.loader import Row, Rows, TrainRows
from qwenvl_train.data.order.step_size import FirstStart, MicroStep, StepSize
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.streaming.draw import open_entries
from qwenvl_train.data.streaming.stream import Stream
from qwenvl_train.data.streaming.windows import Planner, State
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.reporter import Lengths
from qwenvl_train.run.held_out import split, split_in_words
from qwenvl_train.run.rows import (
    about_data,
    about_stream,
    first_then_others,
    fit,
    open_rows,
    steps_of,
    tolerated_problems,
)
from qwenvl_train.training.checkpoint import STREAM
from qwenvl_train.training.distributed.store import agree

_LENGTH_RANGES = 64


class MeasuredData:
    """Training data whose samples were all measured before the run."""

    stream = None

    def __init__(self, config: RunConfig, rows: Rows, world: int, first: FirstStart | None):
        self.rows = rows
        fitted = fit(config, rows, world, first)
        self.config, self.counts, self._fitted = fitted.config, fitted.order, fitted.description
        lengths, choice = rows.lengths, rows.samples.choice()
        self.facts: dict[str, Any] = {"samples": int(lengths.usable.sum()), "tokens": int(lengths.tokens.sum())}
        if choice:
            self.facts["trained_rows"] = choice
        self.problems = lengths.problems

    def steps(self, rows_per_step: int) -> int:
        return steps_of(self.config, self.counts, rows_per_step)

    def go_to(self, row: int, checkpoint: Path | None) -> None:
        """Plan packed row `row` now, so that workers that are forked later inherit the plan. Any packed row can be
        requested at any time."""
        self.counts.row(row)

    def dataset(self, rows: int) -> TrainRows:
        return TrainRows(self.rows, self.counts, rows)

    def length_histogram(self) -> Lengths:
        """Return how many samples have which number of tokens."""
        tokens = self.rows.lengths.tokens[self.rows.lengths.usable]
        counts, edges = np.histogram(tokens, bins=_LENGTH_RANGES)
        return Lengths(counts.tolist(), edges.tolist())

    def largest_rows(self, rows: int) -> list[Row]:
        """Return the packed row with the most tokens and the one with the most patches, which may be the same one,
        among the first `rows` of the first epoch."""
        lengths, of = self.rows.lengths, [self.counts.row(row) for row in range(min(rows, self.counts.rows(1)))]
        sizes = (
            [int(column[indices].sum(dtype=np.int64)) for indices in of] for column in (lengths.tokens, lengths.patches)
        )
        return [self.dataset(rows)[row] for row in dict.fromkeys(int(np.argmax(each)) for each in sizes)]

    def about(self, held_out: Rows | None, steps: int, rows_per_step: int) -> str:
        lines = [self._fitted] if self._fitted else []
        if held_out and self.config.data.eval_share is not None:
            lines.insert(0, split_in_words(self.config, held_out))
        return "\n".join([about_data(self.config, self.rows, held_out, self.counts, steps, rows_per_step), *lines])


class Streamed:
    """Training data that is measured while it is read. It has the same methods as MeasuredData."""

    stream: Stream

    def __init__(self, config: RunConfig, renderer: Renderer, state: PartialState, first: FirstStart | None):
        # The number of steps in an epoch is not known, so auto is not fitted to it.
        self._first = first or FirstStart(StepSize.of(config), MicroStep.of(config, state.num_processes))
        self.config = self._first.in_config(config, state.num_processes)
        self._renderer, self._state = renderer, state
        entries = first_then_others(state, lambda: open_entries(config.data, config.cache_folder))
        # A hub may have a newer commit by the time that another process queries it.
        self._revisions = tuple(json.loads(agree(state, json.dumps([entry.config.revision for entry in entries]))))
        # The number of samples in a stream is not known, but the number and size of its files show that they have not
        # changed.
        files, size = sum(len(entry.files) for entry in entries), sum(entry.size() for entry in entries)
        self.facts = {"samples": None, "tokens": None, "streamed_files": files, "streamed_bytes": size}

    @property
    def counts(self) -> Stream:
        return self.stream

    @property
    def problems(self):
        return self.stream.first.problems

    def steps(self, rows_per_step: int) -> int:
        assert self.config.train.max_steps is not None
        return self.config.train.max_steps

    def go_to(self, row: int, checkpoint: Path | None) -> None:
        """Open the stream at packed row `row`, and read its first window."""
        stored = _stored(checkpoint) if checkpoint else None
        self.stream = first_then_others(self._state, lambda: self._open(stored, row))

    def length_histogram(self) -> None:
        """Return nothing, because the samples are not known before the run."""
        return

    def dataset(self, rows: int) -> Dataset:
        """Return a placeholder. The transformers Trainer requires a dataset, but packed rows come from the stream's
        loader."""
        return TensorDataset(torch.empty(1))

    def about(self, held_out: Rows | None, steps: int, rows_per_step: int) -> str:
        about = about_stream(self.config, self.stream, held_out, steps, rows_per_step)
        return "\n".join([about, *self._renderer.thinking_in_words()])

    def _open(self, stored: State | None, row: int) -> Stream:
        config, state = self.config, self._state
        entries = open_entries(config.data, config.cache_folder, stored.revisions if stored else self._revisions)
        planner = Planner(
            entries, self._renderer, tolerated_problems(config), config, state.process_index, state.num_processes,
            self._first.micro_step,
        )  # fmt: skip
        return Stream(planner, stored or State.beginning(entries), row)


TrainingData = MeasuredData | Streamed


def open_data(
    config: RunConfig, renderer: Renderer, state: PartialState, first: FirstStart | None
) -> tuple[TrainingData, Rows | None]:
    """Open data.train and data.eval. The `config` of the training data has the size of a step in place of auto: that
    of the run that resumes, or else one that fits the data."""
    if config.data.streaming:
        streamed = Streamed(config, renderer, state, first)
        return streamed, _open_eval(config, renderer, state)
    rows = open_rows(config, "data.train", renderer, state)
    if config.data.eval_share is None:
        held_out = _open_eval(config, renderer, state)
    else:
        rows, held_out = split(config, rows, state)
    return MeasuredData(config, rows, state.num_processes, first), held_out


def _open_eval(config: RunConfig, renderer: Renderer, state: PartialState) -> Rows | None:
    return open_rows(config, "data.eval", renderer, state) if config.data.eval else None


def _stored(checkpoint: Path) -> State:
    try:
        return State.of(json.loads((checkpoint / STREAM).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"train.resume: {checkpoint} has no {STREAM}; its run did not have data.streaming=true."
        ) from None
