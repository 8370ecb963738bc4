"""Why rows cannot be used: a reason that holds for many is told once, with the first of them."""

import re
from collections.abc import Iterable

from qwenvl_train.reporting.wording import many

# rows.jsonl:7 (id x)
_PLACE = re.compile(r".+?:\d+( \(id .*?\))?(?=[ :,])")


def told_once(reasons: Iterable[str], most: int) -> tuple[list[str], int]:
    """`most` lines, and of how many rows they say nothing; reasons are alike where only the row differs."""
    alike: dict[str, list[str]] = {}
    for reason in reasons:
        place = _PLACE.match(reason)
        alike.setdefault(reason[place.end() :] if place else reason, []).append(reason)
    groups = list(alike.values())
    lines = [rows[0] if len(rows) == 1 else f"{many(len(rows), 'row')}, the first: {rows[0]}" for rows in groups]
    return lines[:most], sum(map(len, groups[most:]))
