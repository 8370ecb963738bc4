"""Which rows a user asked to look at."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

import numpy as np

from qwenvl_train.config.schema import InspectConfig
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.bar import counted


def choose(samples: Samples, config: InspectConfig, seed: int) -> list[int]:
    """Named rows in the order of their naming, drawn ones in the order of the files."""
    if config.ids or config.lines:
        named = [*_with_ids(samples, config.ids), *(_at_line(samples, line) for line in config.lines)]
        return list(dict.fromkeys(named))
    wanted = len(samples) if config.samples is None else min(config.samples, len(samples))
    if not config.random:
        return list(range(wanted))
    return sorted(np.random.default_rng(seed).choice(len(samples), wanted, replace=False).tolist())


def _with_ids(samples: Samples, ids: tuple[str, ...]) -> list[int]:
    """The first row with each id."""
    found: dict[str, int] = {}
    missing, unread = set(ids), 0
    rows = range(len(samples)) if ids else range(0)
    for index in counted(rows, "looking for inspect.ids", len(rows)):
        try:
            id = samples[index].id
        except UserError:
            unread += 1
            continue
        if id in missing:
            found[id] = index
            missing.remove(id)
        if not missing:
            break
    if missing:
        names = ", ".join(id for id in ids if id in missing)
        told = f"; {unread} rows could not be read, and inspect.lines shows those" if unread else ""
        raise UserError(f"inspect.ids: no row of {_listed(samples)} has the id {names}{told}.")
    return [found[id] for id in ids]


def _at_line(samples: Samples, wanted: str) -> int:
    """17, or my.jsonl:17 with as much of the path as tells the file."""
    file, _, number = wanted.rpartition(":")
    if not number.isdecimal():
        raise UserError(f"inspect.lines: {wanted} is neither a line, as 17, nor a line of a file, as my.jsonl:17.")
    places = [place for place in _files(samples) if not file or place[0] == file or place[0].endswith(f"/{file}")]
    if len(places) != 1:
        names = "no file" if not places else f"{len(places)} files"
        raise UserError(f"inspect.lines: {wanted} fits {names} of {_listed(samples)}; write it as the file's name:17.")
    _, rows = places[0]
    row = bisect_left(rows, int(number), key=lambda index: samples.place(index)[1])
    if row == len(rows) or samples.place(rows[row])[1] != int(number):
        raise UserError(f"inspect.lines: there is no row at {wanted}; {places[0][0]} has {len(rows)} rows.")
    return rows[row]


def _files(samples: Samples) -> Iterator[tuple[str, range]]:
    """Each source with the indices of its rows."""
    ends = list(accumulate(map(len, samples.sources), initial=0))
    for source, start, stop in zip(samples.sources, ends, ends[1:], strict=False):
        yield source.name, range(start, stop)


def _listed(samples: Samples) -> str:
    names = samples.names()
    return ", ".join(names if len(names) <= 3 else [*names[:3], f"and {len(names) - 3} more"])
