"""The choice of the rows that inspect shows."""

from bisect import bisect_left

import numpy as np

from qwenvl_train.data.samples import Samples
from qwenvl_train.data.spread import spread
from qwenvl_train.data.streaming.head import Head
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.bar import counted
from qwenvl_train.verbs.inspect.settings import InspectSection


def choose(rows: Samples | Head, config: InspectSection, seed: int) -> list[int]:
    """Return the indices of the chosen rows. Rows chosen by inspect.ids and inspect.lines keep the order in which the
    user names them. All other rows are in the order of the files."""
    if config.ids or config.lines:
        named = [*_with_ids(rows, config.ids), *(_at_line(rows, line) for line in config.lines)]
        return list(dict.fromkeys(named))
    wanted = len(rows) if config.samples is None else min(config.samples, len(rows))
    if not config.random:
        return spread([indices for _, indices in rows.files()], wanted, seed)
    return sorted(np.random.default_rng(seed).choice(len(rows), wanted, replace=False).tolist())


def _with_ids(rows: Samples | Head, ids: tuple[str, ...]) -> list[int]:
    """Return the index of the first row with each id."""
    found: dict[str, int] = {}
    missing, unread = set(ids), 0
    searched = range(len(rows)) if ids else range(0)
    for index in counted(searched, "searching for inspect.ids", len(searched)):
        id = rows.id(index)
        if id is None:
            unread += 1
        elif id in missing:
            found[id] = index
            missing.remove(id)
        if not missing:
            break
    if missing:
        names = ", ".join(id for id in ids if id in missing)
        told = f"; {unread} rows could not be read (inspect.lines shows them)" if unread else ""
        raise UserError(f"inspect.ids: no row {_where(rows)} has the id {names}{told}{_hint(rows)}.")
    return [found[id] for id in ids]


def _at_line(rows: Samples | Head, wanted: str) -> int:
    """Return the index of the row at a line. The line is given as 17, or as my.jsonl:17 with as much of the path as is
    needed to identify the file."""
    file, _, number = wanted.rpartition(":")
    if not number.isdecimal():
        raise UserError(f"inspect.lines: {wanted} is not a line; write 17 or my.jsonl:17.")
    places = [place for place in rows.files() if not file or place[0] == file or place[0].endswith(f"/{file}")]
    if len(places) != 1:
        names = "no file" if not places else f"{len(places)} files"
        raise UserError(
            f"inspect.lines: {wanted} matches {names} of {_listed(rows)}; write file and line, such as my.jsonl:17."
        )
    name, indices = places[0]
    row = bisect_left(indices, int(number), key=lambda index: rows.origin(index)[1])
    if row == len(indices) or rows.origin(indices[row])[1] != int(number):
        why = f" {_where(rows)}{_hint(rows)}" if _cut(rows) else f"; {name} has {len(indices)} rows"
        raise UserError(f"inspect.lines: there is no row at {wanted}{why}.")
    return indices[row]


def _cut(rows: Samples | Head) -> bool:
    return isinstance(rows, Head) and not rows.whole


def _where(rows: Samples | Head) -> str:
    return f"among the first {len(rows):,} rows of {_listed(rows)}" if _cut(rows) else f"of {_listed(rows)}"


def _hint(rows: Samples | Head) -> str:
    return "; the rest of the stream is not read; data.streaming=false searches all rows" if _cut(rows) else ""


def _listed(rows: Samples | Head) -> str:
    names = rows.names()
    return ", ".join(names if len(names) <= 3 else [*names[:3], f"and {len(names) - 3} more"])
