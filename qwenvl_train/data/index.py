"""The lengths of all rows, measured once by several processes and kept for the next run."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

import numpy as np

from qwenvl_train.data.lengths import COLUMNS, Lengths, Problem, measure_rows
from qwenvl_train.data.render import Renderer
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError

_VERSION = 1
"""To be raised when the same row may come out with other lengths than before."""

_PACKAGES = ("av", "pillow", "qwen-vl-utils", "tokenizers", "transformers")
"""What has a say in lengths."""

_CHUNK = 256
_WORTH_PROCESSES = 2000
"""Fewer rows are measured faster than processes start."""

Progress = Callable[[int], None]


def lengths_of(
    samples: Samples,
    renderer: Renderer,
    cache: Path,
    processes: int,
    tolerated: frozenset[str],
    progress: Progress,
    mend: bool = True,
) -> Lengths:
    """From the cache, or measured now. Raises a UserError for the first row that cannot be used, unless its kind of
    problem is tolerated. With `mend`, broken rows in the cache are looked at again; of several processes, one does."""
    made_by = [version(package) for package in _PACKAGES]
    facts = f"{_VERSION} {made_by} {samples.fingerprint()} {renderer.fingerprint()}"
    key = hashlib.sha256(facts.encode()).hexdigest()[:32]
    file = cache / "lengths" / f"{key}.npz"
    kept = _load(file)
    if kept is None:
        lengths = _measure(samples, renderer, processes, tolerated, progress)
    else:
        lengths = _mended(kept, samples, renderer, tolerated) if mend else kept
    _refuse(lengths.problems, tolerated)
    if lengths is not kept:
        _save(lengths, file)
    return lengths


def _measure(
    samples: Samples, renderer: Renderer, processes: int, tolerated: frozenset[str], progress: Progress
) -> Lengths:
    chunks = [range(start, min(start + _CHUNK, len(samples))) for start in range(0, len(samples), _CHUNK)]
    table = np.zeros((len(COLUMNS), len(samples)), dtype=np.int32)
    problems: list[Problem] = []
    for rows, (part, found) in zip(chunks, _results(samples, renderer, chunks, processes, tolerated), strict=True):
        table[:, rows.start : rows.stop] = part
        _refuse(found, tolerated)
        problems += found
        progress(rows.stop)
    return Lengths.of(table, problems)


def _refuse(problems: Iterable[Problem], tolerated: frozenset[str]) -> None:
    for problem in problems:
        if problem.kind not in tolerated:
            raise UserError(problem.reason)


def _mended(kept: Lengths, samples: Samples, renderer: Renderer, tolerated: frozenset[str]) -> Lengths:
    """What could not be used may be whole by now: a missing picture was added."""
    if not kept.problems:
        return kept
    table = kept.table()
    problems: list[Problem] = []
    for index, known in zip(np.flatnonzero(~kept.usable), kept.problems, strict=True):
        if known.kind == "broken":
            part, found = measure_rows(samples, renderer, range(index, index + 1), tolerated)
            table[:, index] = part[:, 0]
            problems += found
        else:
            problems.append(known)
    return kept if tuple(problems) == kept.problems else Lengths.of(table, problems)


def _results(
    samples: Samples, renderer: Renderer, chunks: list[range], processes: int, tolerated: frozenset[str]
) -> Iterator[tuple[np.ndarray, list[Problem]]]:
    """In order, so that the first problem is the file's first."""
    if processes < 2 or len(samples) < _WORTH_PROCESSES:
        for rows in chunks:
            yield measure_rows(samples, renderer, rows, tolerated)
        return
    # Forked, so that nothing is sent but ranges and results.
    global _shared
    _shared = (samples, renderer, tolerated)
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        try:
            yield from _in_order(pool, chunks, ahead=4 * processes)
        except BrokenProcessPool:
            raise UserError(
                "A process that measures rows was killed, often for lack of memory; lower data.workers and look for "
                f"a very large row in {', '.join(samples.names())}."
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_shared: tuple[Samples, Renderer, frozenset[str]]


def _measure_shared(rows: range) -> tuple[np.ndarray, list[Problem]]:
    samples, renderer, tolerated = _shared
    return measure_rows(samples, renderer, rows, tolerated)


def _in_order(pool: Executor, chunks: list[range], ahead: int) -> Iterator[tuple[np.ndarray, list[Problem]]]:
    waiting = iter(chunks)
    running: list[Future] = [pool.submit(_measure_shared, rows) for rows in islice(waiting, ahead)]
    while running:
        yield running.pop(0).result()
        running += [pool.submit(_measure_shared, rows) for rows in islice(waiting, 1)]


def _save(lengths: Lengths, file: Path) -> None:
    problems = json.dumps([problem.as_dict() for problem in lengths.problems])
    part = file.with_suffix(f".{uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as written:
            np.savez(written, table=lengths.table(), problems=np.array(problems))
        part.replace(file)
    except OSError as error:
        raise UserError(f"data.cache: {file.parent} cannot be written: {error}. Name another folder.") from None


def _load(file: Path) -> Lengths | None:
    """A file that does not read is measured again."""
    try:
        with np.load(file) as stored:
            problems = json.loads(str(stored["problems"]))
            return Lengths.of(stored["table"], (Problem(**problem) for problem in problems))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
