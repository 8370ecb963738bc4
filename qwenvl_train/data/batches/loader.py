"""Makes packed rows on demand, in the form that training and evaluation each need."""

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import parent_process
from threading import Thread

import numpy as np
from torch.utils.data import Dataset

from qwenvl_train.batch import Batch, Contents
from qwenvl_train.config.entries import entry_names
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.index.lengths import Lengths, Problem, problem_of
from qwenvl_train.data.media.feature_cache import FeatureCache
from qwenvl_train.data.order.order import Order
from qwenvl_train.data.precompute.references import References
from qwenvl_train.data.render.layout import Layout
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError


@dataclass(frozen=True)
class Row:
    """One packed row: the samples of one forward pass."""

    batch: Batch
    contents: Contents
    """Sizes of the batch. Without samples if none could be decoded; the batch then has no learned tokens."""
    problems: tuple[Problem, ...]
    """Samples that turned out broken only when their media were decoded. They are not in the batch."""
    origins: tuple[tuple[str, int], ...]
    """The source and the line of each sample in the batch."""


@dataclass(frozen=True)
class Rows:
    """Makes a packed row of any samples. Workers receive this object, which holds paths but no pictures."""

    samples: Samples
    lengths: Lengths
    renderer: Renderer
    references: References | None = None

    def __call__(self, indices: Iterable[int]) -> Row:
        parts = ((self.samples.origin(int(index)), partial(self.rendered, int(index))) for index in indices)
        return make_row(parts, self.renderer)

    def part(self, indices: np.ndarray) -> "Rows":
        """Return a copy with some of the samples. `indices` are sorted."""
        return replace(self, samples=self.samples.part(indices), lengths=self.lengths.part(indices))

    def with_features(self, features: FeatureCache) -> "Rows":
        """Return a copy whose rows hold stored vision tower outputs instead of pictures."""
        return replace(self, renderer=self.renderer.with_features(features))

    def with_references(self, references: References) -> "Rows":
        """Return a copy whose rows also hold the reference model's log-probabilities."""
        return replace(self, references=references)

    def rendered(self, index: int) -> Rendered:
        entry = self.samples.entry_of(index) if len(self.samples.entries) > 1 else None
        rendered = render_as_measured(self.samples[index], int(self.lengths.tokens[index]), self.renderer, entry)
        return rendered if self.references is None else replace(rendered, reference=self.references.read(index))


def make_row(parts: Iterable[tuple[tuple[str, int], Callable[[], Rendered]]], renderer: Renderer) -> Row:
    """Return the packed row of `parts`, each given as (source and line, function that renders it).

    A part that cannot be decoded becomes a problem of the row and raises no error here, because all processes of the
    run decide together whether the run continues without it.
    """
    rendered, problems, origins = [], [], []
    for origin, render in parts:
        try:
            rendered.append(render())
            origins.append(origin)
        except UserError as error:
            problems.append(problem_of(origin, error))
    return Row(
        collate(rendered or [renderer.blank()], renderer),
        contents_of([item.layout for item in rendered]),
        tuple(problems),
        tuple(origins),
    )


def contents_of(layouts: Sequence[Layout]) -> Contents:
    return Contents(
        pieces=tuple(layout.pieces for layout in layouts),
        supervised=sum(layout.supervised for layout in layouts),
        grids=tuple(size.grid for layout in layouts for size in layout.media),
        chosen=sum(layout.answers[0] for layout in layouts if layout.answers),
    )


def render_as_measured(sample: Sample, tokens: int, renderer: Renderer, entry: int | None) -> Rendered:
    """Return the rendered sample, whose number of tokens must be the measured one. `entry` is that of a Rendered."""
    rendered = renderer.render(sample)
    if rendered.layout.length != tokens:
        raise UserError(
            f"{sample.where} had {tokens} tokens when it was measured and has {rendered.layout.length} now: its "
            "media have changed. Start the run again; if this happens again, delete the folder data.cache."
        )
    return replace(rendered, entry=entry)


@dataclass(frozen=True)
class TrainRows(Dataset[Row]):
    """The first `count` packed rows of the run. Each is made when it is read."""

    rows: Rows
    order: Order
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Row:
        return self.rows(self.order.row(index))


def only_row(items: list[Row]) -> dict[str, object]:
    """Return the only item of a loader's batch. This is the collator of a loader whose items are whole packed rows."""
    (row,) = items
    return {**row.batch, "contents": row.contents, "problems": row.problems, "origins": row.origins}


def ignore_terminal_signals(_: int = 0) -> None:
    """Make a worker ignore signals that a terminal or a scheduler sends to all processes.

    Only the parent reacts to them: it ends its step, saves, and then ends its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        parent = parent_process()
        assert parent is not None
        Thread(target=_end_when_told_by, args=(parent.pid,), daemon=True).start()


def _end_when_told_by(parent: int) -> None:
    sender = None
    while sender != parent:
        sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
    os._exit(0)


class EvalRows(Dataset):
    """This process's share of the packed rows of the evaluation set, in file order. A packed row has samples of one
    entry of data.eval only, so that each entry can have a score of its own.

    Every process gets the same number of rows, because the processes of a sharded model must call it equally often.
    Rows that are added to reach this number are not counted.
    """

    def __init__(self, rows: Rows, batch_size: int, rank: int, world: int):
        self.entries = entry_names([entry.config for entry in rows.samples.entries])
        """A name for each entry of data.eval."""
        cut: list[tuple[np.ndarray, int]] = []
        for number, entry in enumerate(rows.samples.entries):
            usable = entry.start + rows.lengths.usable[entry.start : entry.stop].nonzero()[0]
            cut += [(usable[start : start + batch_size], number) for start in range(0, len(usable), batch_size)]
        mine = cut[rank::world]
        self._make = rows
        self._rows = mine + [cut[0]] * (-(-len(cut) // world) - len(mine))
        self._counted = len(mine)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Batch, Contents, tuple[Problem, ...], int | None]:
        """Return the fields of a row, since a loader that pins memory does not handle Row, and the index of its entry.
        The index is None if the row does not count."""
        indices, entry = self._rows[index]
        row = self._make(indices)
        return row.batch, row.contents, row.problems, entry if index < self._counted else None
