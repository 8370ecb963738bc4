"""Spans of time in a video: read from annotations, and written as answers have them."""

from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.numbers import is_number, shown

Span = tuple[float, float]
"""Start and end in seconds."""


def span_of(start: Any, end: Any, duration: Any, what: str) -> Span:
    """Return a span without the seconds by which it ends after its video.

    Raises:
        UserError: If it is none, ends before it starts, or starts after the end of the video.
    """
    if not (is_number(start) and is_number(end)):
        raise UserError(f"{what} has the times {shown(start)} and {shown(end)}; expected two numbers of seconds")
    last = duration if is_number(duration) else end
    if not 0 <= start < min(end, last):
        known = f" of a video of {duration:g} seconds" if is_number(duration) else ""
        raise UserError(f"{what} goes from {start:g} to {end:g} seconds{known}")
    return float(start), float(min(end, last))


def clock(span: Span) -> str:
    """Return a span as `mm:ss.ff - mm:ss.ff`, as in Qwen's cookbook, with hours only where there are any."""
    return " - ".join(map(_clock, span))


def seconds(span: Span) -> str:
    return f"{span[0]:.1f} - {span[1]:.1f} seconds"


def _clock(time: float) -> str:
    hundredths = round(100 * time)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    written = f"{minutes:02}:{rest // 100:02}.{rest % 100:02}"
    return f"{hours:02}:{written}" if hours else written
