"""Finds spans of time in the text of an answer."""

import re
from collections.abc import Iterator

from qwenvl_train.evaluation.metrics.json_text import objects_in, readable_json_in

Span = tuple[float, float]
"""Start and end in seconds."""
_TIME = r"((?:\d+:)?\d{1,2}:\d{2}(?:\.\d+)?|\d+(?:\.\d+)?)\s*(?:seconds|second|secs|sec|s)?\b"
_SPAN = re.compile(rf"(?<![\d.:]){_TIME}\s*(?:-|–|—|~|,|to|and|until)\s*{_TIME}(?![.:]?\d)", re.IGNORECASE)
_WORDS_ABOUT_SPAN = re.compile(rf"^({_SPAN.pattern})\s*[,:]\s*(?!and\b)[^\W\d].*$", re.IGNORECASE | re.MULTILINE)
_KEYS = (("start", "end"), ("start_time", "end_time"), ("start_timestamp", "end_timestamp"))


def spans_in(text: str) -> list[Span]:
    """Return the spans of time in a text: those in its JSON if it names a start and an end or has spans as keys, and
    else two times with a dash or a word between them. Where a line begins with a span and goes on with words about it,
    times in these words do not count."""
    return list(_spans_in_json(text)) or [
        span for found in _SPAN.finditer(_WORDS_ABOUT_SPAN.sub(r"\1", text)) if (span := _span(found))
    ]


def overlap(one: Span, other: Span) -> float:
    both = min(one[1], other[1]) - max(one[0], other[0])
    union = max(one[1], other[1]) - min(one[0], other[0])
    return max(both, 0) / union if union > 0 else float(one == other)


def _spans_in_json(text: str) -> Iterator[Span]:
    """Yield the spans that objects name by a start and an end, or have as keys, as in Qwen's cookbook."""
    for one in objects_in(readable_json_in(text)):
        for key in one:
            if (found := _SPAN.fullmatch(key.strip())) and (span := _span(found)):
                yield span
        for start, end in _KEYS:
            try:
                yield _seconds(str(one[start])), _seconds(str(one[end]))
            except (KeyError, ValueError):
                continue


def _span(found: re.Match[str]) -> Span | None:
    """Return the span, or None if it ends before it starts."""
    start, end = _seconds(found[1]), _seconds(found[2])
    return (start, end) if start <= end else None


def _seconds(time: str) -> float:
    """Return a time as seconds, from hh:mm:ss.ff, mm:ss.ff or seconds. Raise ValueError for other text."""
    seconds = 0.0
    if not (found := re.fullmatch(_TIME, time.strip(), re.IGNORECASE)):
        raise ValueError(time)
    for part in found[1].split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
