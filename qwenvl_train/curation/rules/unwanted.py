"""Rows with words that the user does not want."""

import re
from functools import lru_cache
from pathlib import Path

from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.text import UNSPACED
from qwenvl_train.curation.verdict import Verdict, quoted
from qwenvl_train.curation.view import RowView, turn_text
from qwenvl_train.errors import UserError


class Unwanted(RuleSection):
    words: str | None
    """A text file with one entry on each line: a word or phrase, or a regular expression between slashes. Upper and
    lower case are the same. Lines that begin with # are comments."""


_UNSPACED = re.compile(f"[{UNSPACED}]")


def judge(row: RowView, settings: Unwanted) -> Verdict | None:
    if settings.words is None:
        return None
    text = "\n".join(turn_text(turn) for turn in row.sample.turns if turn.role != "system")
    texts = (text, *(answer.turn.thoughts or "" for answer in row.answers))
    for pattern, is_folded in patterns_in(settings.words):
        for one in texts:
            if found := pattern.search(one.casefold() if is_folded else one):
                return Verdict(True, evidence=f"it has {quoted(found[0])}")
    return Verdict(False)


@lru_cache(maxsize=8)
def patterns_in(path: str) -> tuple[tuple[re.Pattern[str], bool], ...]:
    """Return the patterns of a file, each with whether it searches text with case folded. All words are one pattern.

    Raises:
        UserError: If the file cannot be read, or a regular expression in it is wrong.
    """
    try:
        entries = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"filter.unwanted.words: {path} is no text in UTF-8; save it as UTF-8.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"filter.unwanted.words: {path} cannot be read: {reason}; give the path of a text file."
        ) from None
    given = [(line, entry.strip()) for line, entry in enumerate(entries, 1)]
    given = [(line, entry) for line, entry in given if entry and not entry.startswith("#")]
    words = [entry for _, entry in given if not _is_pattern(entry)]
    patterns = [(_compiled(entry, path, line), False) for line, entry in given if _is_pattern(entry)]
    # Longer entries come first, so that the evidence quotes the whole of a phrase.
    union = "|".join(_as_pattern(word) for word in sorted(words, key=len, reverse=True))
    return ((re.compile(union), True), *patterns) if words else tuple(patterns)


def _is_pattern(entry: str) -> bool:
    return len(entry) > 2 and entry[0] == entry[-1] == "/"


def _compiled(entry: str, path: str, line: int) -> re.Pattern[str]:
    try:
        return re.compile(entry[1:-1], re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(
            f"filter.unwanted.words: {path}:{line} is no regular expression: {error}; correct it."
        ) from None


def _as_pattern(entry: str) -> str:
    """Return a pattern that finds an entry as whole words. Scripts without spaces have no borders of words."""
    folded = entry.casefold()
    body = r"\s+".join(map(re.escape, folded.split()))
    before = "" if _UNSPACED.match(folded[0]) or not _is_letter(folded[0]) else r"(?<!\w)"
    after = "" if _UNSPACED.match(folded[-1]) or not _is_letter(folded[-1]) else r"(?!\w)"
    return before + body + after


def _is_letter(character: str) -> bool:
    return character.isalnum() or character == "_"


RULE = Rule("unwanted", "words of your own list", True, judge)
