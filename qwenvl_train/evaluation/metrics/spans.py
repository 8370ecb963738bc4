"""Finds spans of time in the text of an answer."""

import re
from collections.abc import Iterator

from qwenvl_train.evaluation.metrics.json_text import json_in, objects_in

Span = tuple[float, float]
"""Start and end in seconds."""
_TIME = r"((?:\d+:)?\d{1,2}:\d{2}(?:\.\d+)?|\d+(?:\.\d+)?)\s*(?:seconds|second|secs|sec|s)?\b"
_SPAN = re.compile(rf"(?<![\d.:]){_TIME}\s*(?:-|–|—|~|,|to|and|until)\s*{_TIME}(?![.:]?\d)", re.IGNORECASE)
_KEYS = (("start", "end"), ("start_time", "end_time"), ("start_timestamp", "end_timestamp"))


def spans_in(text: str) -> list[Span]:
    """Return the spans of time in a text: those in its JSON if it names a start and an end, and else two times with a
    dash or a word between them."""
    return list(_spans_in_json(text)) or [
        span for found in _SPAN.finditer(text) if (span := (_seconds(found[1]), _seconds(found[2])))[0] <= span[1]
    ]


def overlap(one: Span, other: Span) -> float:
    both = min(one[1], other[1]) - max(one[0], other[0])
    union = max(one[1], other[1]) - min(one[0], other[0])
    return max(both, 0) / union if union > 0 else float(one == other)


def _spans_in_json(text: str) -> Iterator[Span]:
    for one in objects_in(json_in(text)):
        for start, end in _KEYS:
            try:
                yield _seconds(str(one[start])), _seconds(str(one[end]))
            except (KeyError, ValueError):
                continue


def _seconds(time: str) -> float:
    """Return a time as seconds, from hh:mm:ss.ff, mm:ss.ff or seconds. Raise ValueError for other text."""
    seconds = 0.0
    if not (found := re.fullmatch(_TIME, time.strip(), re.IGNORECASE)):
        raise ValueError(time)
    for part in found[1].split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
