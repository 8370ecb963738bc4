"""The reasons why rows cannot be used. A reason that many rows share is shown once, with the first of these rows."""

import re
from collections.abc import Iterable

from qwenvl_train.reporting.wording import many

# Matches the place at the start of a reason, such as: rows.jsonl:7 (id x)
_PLACE = re.compile(r".+?:\d+( \(id .*?\))?(?=[ :,])")


def told_once(reasons: Iterable[str], most: int) -> tuple[list[str], int]:
    """Return at most `most` lines, and the number of rows that these lines do not cover. Reasons that differ only in
    the place of the row share a line."""
    alike: dict[str, list[str]] = {}
    for reason in reasons:
        place = _PLACE.match(reason)
        alike.setdefault(reason[place.end() :] if place else reason, []).append(reason)
    groups = list(alike.values())
    lines = [rows[0] if len(rows) == 1 else f"{many(len(rows), 'row')}, the first: {rows[0]}" for rows in groups]
    return lines[:most], sum(map(len, groups[most:]))
