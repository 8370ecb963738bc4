"""Measures the lengths of all samples, once and in several processes, and keeps them for the next run."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic

import numpy as np

from qwenvl_train.data.forked import forked_map
from qwenvl_train.data.index.files import IndexFiles
from qwenvl_train.data.index.lengths import COLUMNS, Lengths, Problem, measure_rows, refuse, refuse_many, within_limits
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.samples import Samples

_VERSION = 3
"""Increase this when the same raw row may get other lengths than before."""

_PACKAGES = ("av", "pillow", "qwen-vl-utils", "tokenizers", "transformers")
"""Packages whose versions can change lengths."""

_CHUNK = 256
"""Number of samples that a process measures at a time."""
_WORTH_PROCESSES = 2000
"""Number of samples from which several processes are used. Fewer are measured faster than processes start."""
_PART_SECONDS = 60
"""Seconds between two part files. At most this much work is lost if a start is killed while it measures."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class MeasureOptions:
    cache: Path
    """Folder of the lengths that were measured before."""
    processes: int = 0
    """Number of processes that measure. With less than 2, this process does."""
    tolerated: frozenset[str] = frozenset()
    """Kinds of problems for which a sample is left out. A problem of another kind is an error."""
    max_problems: int | None = None
    """Number of samples that may be left out. None for any number."""
    remeasure: bool = True
    """Whether samples that the cache records as broken are measured again. Only one of several processes does this."""


def lengths_of(samples: Samples, renderer: Renderer, options: MeasureOptions, progress: Progress) -> Lengths:
    """Return the lengths of all samples, read from the cache or measured now.

    Raise UserError for the first sample that cannot be used and must not be left out.
    """
    if samples.chosen is not None:
        return lengths_of(samples.whole, renderer, options, progress).part(samples.chosen)
    made_by = [version(package) for package in _PACKAGES]
    facts = f"{_VERSION} {made_by} {samples.fingerprint()} {renderer.fingerprint()}"
    files = IndexFiles(options.cache / "lengths", hashlib.sha256(facts.encode()).hexdigest()[:32])
    cached = files.load()
    if cached is None:
        lengths = _measure(samples, renderer, options, progress, files)
    else:
        lengths = _remeasured(cached, samples, renderer, options.tolerated) if options.remeasure else cached
    # The stored lengths are valid for any data.max_length.
    usable = within_limits(lengths, samples, renderer.max_length, options.tolerated, options.max_problems)
    if lengths is not cached:
        files.save(lengths)
    return usable


def _measure(
    samples: Samples, renderer: Renderer, options: MeasureOptions, progress: Progress, files: IndexFiles
) -> Lengths:
    """Return the lengths of all samples, continuing where an earlier start that was killed had stopped.

    Samples that are too long have their lengths in the result and are not among its problems yet.
    """
    tolerated, max_problems = options.tolerated, options.max_problems
    begun = _remeasured(files.load_parts(), samples, renderer, tolerated)
    within_limits(begun, samples, renderer.max_length, tolerated, max_problems)
    first = len(begun.tokens)
    table = np.zeros((len(COLUMNS), len(samples)), dtype=np.int32)
    table[:, :first] = begun.table()
    problems = list(begun.problems)
    saved, saved_problems, last = first, len(problems), monotonic()
    chunks = [range(start, min(start + _CHUNK, len(samples))) for start in range(first, len(samples), _CHUNK)]
    for rows, (part, found) in zip(chunks, _results(samples, renderer, chunks, options), strict=True):
        for problem in found:
            refuse(problem, tolerated)
        table[:, rows.start : rows.stop] = part
        problems += [problem for problem in found if problem.kind == "broken"]
        refuse_many(problems, max_problems)
        if monotonic() - last >= _PART_SECONDS:
            files.save_part(saved, Lengths.of(table[:, saved : rows.stop], problems[saved_problems:]))
            saved, saved_problems, last = rows.stop, len(problems), monotonic()
        progress(rows.stop)
    return Lengths.of(table, problems)


def _remeasured(cached: Lengths, samples: Samples, renderer: Renderer, tolerated: frozenset[str]) -> Lengths:
    """Measure the unusable samples again. They may be usable by now, for example if a missing picture was added."""
    if not cached.problems:
        return cached
    table = cached.table()
    problems: list[Problem] = []
    for index in np.flatnonzero(~cached.usable).tolist():
        part, found = measure_rows(samples, renderer, range(index, index + 1), tolerated)
        table[:, index] = part[:, 0]
        problems += [problem for problem in found if problem.kind == "broken"]
    return cached if tuple(problems) == cached.problems else Lengths.of(table, problems)


def _results(
    samples: Samples, renderer: Renderer, chunks: list[range], options: MeasureOptions
) -> Iterator[tuple[np.ndarray, list[Problem]]]:
    """Yield the tables and problems of the chunks in order, so that the first problem is the first of the file."""
    processes = options.processes if len(samples) >= _WORTH_PROCESSES else 0
    killed = (
        "A worker that measures rows was killed, usually because memory ran out; lower data.workers, and look for a "
        f"very large row in {', '.join(samples.names())}."
    )

    def measured(rows: range) -> tuple[np.ndarray, list[Problem]]:
        return measure_rows(samples, renderer, rows, options.tolerated)

    yield from forked_map(measured, chunks, processes, killed)
