"""What a rule says about a row."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """The judgement of one rule about a row that it applies to."""

    falls: bool
    """Whether the row falls to the rule."""
    value: float | None = None
    """The figure that the rule has measured, if it measures one. Its threshold is compared with this figure."""
    evidence: str = ""
    """Why the row falls, in a few words that quote it. Empty for a row that stays."""


def above(value: float, limit: float, evidence: Callable[[], str]) -> Verdict:
    """Return the verdict of a rule to which rows fall whose figure is above a limit. The evidence is made only for
    these."""
    return Verdict(True, value, evidence()) if value > limit else Verdict(False, value)


def quoted(text: str, most: int = 80) -> str:
    """Return a text on one line in quotation marks, shortened to `most` characters."""
    words = " ".join(text.split())
    return f"'{words if len(words) <= most else words[: most - 1] + '…'}'"
