"""An endless stream of samples, divided into windows.

The raw rows of each window are read, checked and measured; its samples are then shuffled and cut into units. A window
is a pure function of the state that it begins with. Every process therefore computes the same windows without
communication, and a resumed run needs only the beginning of the window that it was in.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.index.lengths import COLUMNS, Problem, measure_sample, problem_of
from qwenvl_train.data.order.balance import balanced
from qwenvl_train.data.order.order import Plan
from qwenvl_train.data.order.packing import pack
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.samples import trained_on_too
from qwenvl_train.data.streaming.draw import Draw, Entry, StreamCursor
from qwenvl_train.errors import UserError

_SAMPLES = 4096
"""The least number of samples in a window, except in the first windows (see _SMALL) and in windows that end early."""
_SMALL = 3
"""The first window is smaller by this many powers of two, so that the first batch comes soon. For each following window
the number of powers is one less."""
_FEW_PACKS, _TO_FILL = 128, 1 / 32
"""A window that fills fewer packs than _FEW_PACKS is extended until at most the share _TO_FILL of its last pack is
empty."""
_BYTES = 256 * 2**20
"""A window always ends once the media stored in its raw rows themselves reach this number of bytes."""

# These numbers are not 0, because numpy ignores zeros at the end of a seed.
_SHUFFLE, _BALANCE = 1, 2


@dataclass(frozen=True)
class State:
    """The position in the stream at which a window begins, with the counts of what came before it. It can be stored as
    JSON."""

    window: int
    unit: int
    samples: int
    tokens: int
    supervised: int
    entries: tuple[StreamCursor, ...]

    @property
    def passes(self) -> int:
        """The number of complete passes through every entry."""
        return min(entry.passes for entry in self.entries)

    @property
    def revisions(self) -> tuple[str | None, ...]:
        return tuple(entry.revision for entry in self.entries)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "State":
        return cls(**stored | {"entries": tuple(StreamCursor(**entry) for entry in stored["entries"])})

    @classmethod
    def beginning(cls, entries: tuple[Entry, ...]) -> "State":
        return cls(0, 0, 0, 0, 0, tuple(StreamCursor(entry.config.revision) for entry in entries))


@dataclass(frozen=True)
class Measured:
    """The sample of a raw row that can be trained on, with its measured lengths."""

    sample: Sample
    columns: tuple[int, ...]
    """The values of COLUMNS for this sample."""
    entry: int | None
    """Index of the entry of data.train that the sample belongs to, if there are several."""

    @property
    def tokens(self) -> int:
        return self.columns[0]

    @property
    def origin(self) -> tuple[str, int]:
        """The name of the source and the line of the row."""
        return self.sample.source, self.sample.line


@dataclass(frozen=True)
class UnusableRow:
    """A raw row that cannot be trained on, with its problem."""

    problem: Problem
    sample: Sample | None
    """The sample of the row, or None when the row could not be converted to a sample."""
    id: str | None
    """The id of the row, or None when the row could not be read."""

    @property
    def origin(self) -> tuple[str, int]:
        return self.problem.source, self.problem.line


@dataclass(frozen=True)
class Window:
    start: State
    after: State
    units: dict[int, tuple[Measured, ...]]
    """The units of this process, by their number in the stream. A unit is one sample, or one pack of samples."""
    seen: np.ndarray
    """[micro-steps that end in this window, 4]: the number of samples, tokens, supervised tokens and passes up to the
    end of each micro-step."""
    problems: tuple[Problem, ...]
    tokens: np.ndarray
    """[samples]: the number of tokens of each sample."""
    detailed: dict[str, int]
    """The number of pictures with OpenAI's `detail`, by the name of their source."""


class Planner:
    """Plans the windows of a stream for the process `rank`.

    Packed row i of the run consists of `train.batch_size` units and goes to process i % world.
    """

    def __init__(
        self, entries: tuple[Entry, ...], renderer: Renderer, tolerated: frozenset[str], config: RunConfig,
        rank: int, world: int, balanced_for: tuple[int, int] | None = None,
    ):  # fmt: skip
        """`balanced_for` is that of `build_order`. With None, it is the numbers of this planner."""
        self.entries, self.renderer = entries, renderer
        self.batch_size, self.rank, self.world = config.train.batch_size, rank, world
        self._tolerated, self._data, self._seed = tolerated, config.data, config.seed
        self._balanced_for = balanced_for or (world, self.batch_size)
        self._capacity = config.pack_length
        self._draw: Draw | None = None
        self._next: State | None = None

    def window(self, start: State) -> Window:
        read = list(self.rows(start))
        measured = [row for row in read if isinstance(row, Measured)]
        problems = tuple(row.problem for row in read if isinstance(row, UnusableRow))
        columns = columns_of(measured)
        plan = self.plan(columns, start)
        sizes = np.diff(plan.borders)
        totals = np.cumsum([sizes, plan.sums(columns["tokens"]), plan.sums(columns["supervised"])], axis=1)
        totals = totals + np.array([[start.samples], [start.tokens], [start.supervised]])
        seen = totals[:, -1].tolist() if len(plan) else [start.samples, start.tokens, start.supervised]
        self._next = State(start.window + 1, start.unit + len(plan), seen[0], seen[1], seen[2], self._progress)
        units = {
            start.unit + unit: tuple(
                measured[index] for index in plan.samples[plan.borders[unit] : plan.borders[unit + 1]]
            )
            for unit in range(len(plan))
            if (start.unit + unit) // self.batch_size % self.world == self.rank
        }
        seen_after = self._seen(totals, start, self._next)
        return Window(start, self._next, units, seen_after, problems, columns["tokens"], detail_by_source(measured))

    def rows(self, start: State) -> Iterator[Measured | UnusableRow]:
        """Yield the raw rows of the window that begins with `start`, as they are read.

        The window ends early at the end of a pass, and when more rows were skipped than any run allows. Raise UserError
        for a row with a problem that is not tolerated.
        """
        if self._draw is None or self._next != start:
            self.close()
            self._draw = Draw(self.entries, start.entries)
        least = _SAMPLES >> max(0, _SMALL - start.window)
        samples = skipped = tokens = stored_bytes = 0
        while (samples < least or self._leaves_room(tokens)) and stored_bytes < _BYTES:
            if skipped > self._data.max_skipped or (drawn := self._draw.next()) is None:
                return
            sample = None
            try:
                sample = drawn.sample()
                row = Measured(sample, measure_sample(sample, self.renderer), drawn.entry)
            except UserError as error:
                problem = problem_of(drawn.origin, error)
                if problem.kind not in self._tolerated:
                    raise
                skipped += 1
                yield UnusableRow(problem, sample, drawn.id())
                continue
            drawn.count()
            samples += 1
            tokens += row.tokens
            stored_bytes += _stored_bytes(sample)
            yield row

    def plan(self, columns: dict[str, np.ndarray], start: State) -> Plan:
        """Return a plan that cuts the samples of the window that begins with `start` into units. Each array of
        `columns` is [samples]."""
        tokens = columns["tokens"]
        order = np.random.default_rng((self._seed, start.window, _SHUFFLE)).permutation(len(tokens))
        plan = Plan(order, np.arange(len(order) + 1))
        if self._capacity is not None:
            packs = pack(tokens[order], self._capacity)
            plan = Plan(order[np.argsort(packs, kind="stable")], np.concatenate([[0], np.cumsum(np.bincount(packs))]))
        elif not self._data.bucketing:
            return plan
        rng = np.random.default_rng((self._seed, start.window, _BALANCE))
        costs = plan.sums(tokens), plan.sums(columns["patches"])
        return plan.reordered(balanced(*costs, *self._balanced_for, start.unit, rng))

    def describe(self) -> list[str]:
        """Return a description of each entry: its files, and the format of the files that were read from, with the
        reason."""
        assert self._draw is not None
        lines = []
        for entry, formats in zip(self.entries, self._draw.formats(), strict=True):
            read = ", ".join(formats) or "format not known yet"
            lines.append(f"{entry.config.path}: streamed{_files(len(entry.files))}, {read}")
            lines += trained_on_too(entry.config.path, [flow.name for flow, _ in entry.files])
        return lines

    def whole(self) -> bool:
        """Return whether every raw row of all entries has been read."""
        return all(entry.whole for entry in self._progress)

    def close(self) -> None:
        """Stop all reading, so that another process can continue it."""
        if self._draw is not None:
            self._draw.close()
            self._draw = None

    @property
    def _progress(self) -> tuple[StreamCursor, ...]:
        assert self._draw is not None
        return self._draw.progress

    def _leaves_room(self, tokens: int) -> bool:
        """Return whether the last pack would have so much empty room that more samples are needed."""
        room = self._capacity
        return room is not None and tokens < _FEW_PACKS * room and -tokens % room > _TO_FILL * room

    def _seen(self, totals: np.ndarray, start: State, after: State) -> np.ndarray:
        group = self.world * self.batch_size
        ends = np.arange(-start.unit % group or group, totals.shape[1] + 1, group)
        passes = np.where(ends < totals.shape[1], start.passes, after.passes)
        return np.concatenate([totals[:, ends - 1], passes[None]]).T


def columns_of(rows: Iterable[Measured]) -> dict[str, np.ndarray]:
    """Return the values of each of COLUMNS by its name, [rows] each."""
    table = np.array([row.columns for row in rows], dtype=np.int64).reshape(-1, len(COLUMNS))
    return dict(zip(COLUMNS, table.T, strict=True))


def detail_by_source(rows: Iterable[Measured]) -> dict[str, int]:
    """Return the number of pictures with OpenAI's `detail`, by the name of their source."""
    found: Counter[str] = Counter()
    for row in rows:
        found[row.origin[0]] += row.columns[COLUMNS.index("detailed")]
    return dict(found)


def _files(count: int) -> str:
    return f" from {count:,} files" if count > 1 else ""


def _stored_bytes(sample: Sample) -> int:
    """Return the number of bytes of the media that are stored in the sample itself, not referred to by a path."""
    contents = [part for media in sample.media for part in _parts(media.content)]
    return sum(len(content) for content in contents if isinstance(content, bytes))


def _parts(content: object) -> tuple:
    return content if isinstance(content, tuple) else (content,)
