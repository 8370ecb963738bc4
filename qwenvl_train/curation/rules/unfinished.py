"""Answers that are cut off, or leave out their end."""

import re
from collections.abc import Callable

from pydantic import PositiveInt

from qwenvl_train.curation.forms import form_of
from qwenvl_train.curation.questions import asks_for_given_text
from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.text import CLOSERS, ENDS, words
from qwenvl_train.curation.verdict import Verdict, quoted
from qwenvl_train.curation.view import AnswerView, RowView


class Unfinished(RuleSection):
    min_words: PositiveInt
    """In a line of fewer words, an end without a full stop is right, as in class labels and headings."""


_ITEM = re.compile(r"\s*(?:[-*+•·]|\(?\d{1,3}[.)）、]|[a-zA-Z][.)])\s+")
_EMPTY_ITEM = re.compile(
    r"(?:^|\n)[ \t]*(?:[-*+•]|\d{1,3}[.)、])[ \t]+\S[^\n]*\n+[ \t]*(?:[-*+•]|\d{1,3}[.)、])[ \t]*$"
)
_LONGEST_MARK = 4
_FENCE_LINE = re.compile(r"^[ \t]*```", re.MULTILINE)
# Intervals such as [0, 1) open with one bracket and close with another.
_PAIRS = {"(": ")]", "（": "）)", "[": "])", "{": "}", "「": "」", "『": "』", "《": "》", "【": "】", "“": "”"}
_EMOTICON = re.compile(r"[:;=][-']?[()\[\]]")
_CONTINUED = re.compile(
    r"(?:to be continued|\(continued\)|\[(?:truncated|continued|cut off)\]|<truncated>|未完待续|未完待續|待续|"
    r"つづく|（続く）|Fortsetzung folgt|à suivre|يتبع)[\s.…!。)）\]]*$",
    re.IGNORECASE,
)
_DANGLING = re.compile(
    r"(?<=\s)(?:and|or|but|because|the|a|an|of|from|than|with|into|which|whose|und|oder|aber|weil|dass|eine?[nmrs]?|"
    r"et|ou|mais|parce que|que|une?|les?|des|y|pero|porque|una|los|las|del)$"
    r"|(?:以及|并且|並且|但是|因为|因為|或者|和|与|或|而且|では|そして|しかし|また)$|(?<=\s)(?:و|أو|لأن|في|من|على|إلى|التي|الذي)$"
)
# Sentences may end in figures, units, names, formulas and single letters without a full stop.
_WHOLE_WITHOUT_STOP = re.compile(
    r"[\d%°€$£¥²³]\s*\w{0,3}$|(?:^|[\s:：])[A-Z]$|[:：]\s*\S+(?:\s\S+){0,2}$|[^\w\s.,;]$|\s[A-Z][\w.]*\s+[A-Z][\w.]*$"
)
_STOP = re.compile(rf"(?<=[\w)\]\"'”`%])[.!?؟۔।][{re.escape(CLOSERS)}]*\s+(?=\S)|[。！？][{re.escape(CLOSERS)}]*(?=\S)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:\w|[DMS]r|Mrs|Prof|[Ss]t|vs|No|Nr|Fig|approx|ca|bzw|usw|e\.g|i\.e|z\.B|etc)$"
)
_LEAST_SENTENCE = 4
_END = 40
"""The number of characters that are looked at to judge the end of a line."""
_LEAST_TAIL = 2


def judge(row: RowView, settings: Unfinished) -> Verdict | None:
    for answer in row.answers:
        fault = unfinished(answer, settings.min_words)
        if fault:
            return Verdict(True, evidence=fault)
    return Verdict(False)


def unfinished(answer: AnswerView, least: int) -> str:
    """Return how an answer is cut off, in words. Empty for one that is not."""
    if answer.only_thoughts:
        return "the thoughts do not end"
    text = answer.text
    if "```" in text and len(_FENCE_LINE.findall(text)) % 2:
        return "a block of code is not closed"
    # Answers in other forms have rules of their own. Text of a picture may end anywhere.
    if not text or not answer.ends_in_text or form_of(text) != "prose" or asks_for_given_text(answer.question):
        return ""
    # The last line is looked at first, since most answers have more than the mark of an item in it.
    if len(text) - text.rfind("\n") <= _LONGEST_MARK + 1 and _EMPTY_ITEM.search(text[-400:]):
        return "the last item of a list is empty"
    said = answer.passage.prose.strip().rstrip("*_ ")
    # Formulas, code, tables and addresses, which are not prose, end an answer without a full stop.
    if not said or said[-1] != text.rstrip("*_ \n")[-1:]:
        return ""
    last = said.rsplit("\n", 1)[-1].strip()
    for check in _CHECKS:
        fault = check(said, last, least)
        if fault:
            return fault
    return ""


def _continued(said: str, last: str, least: int) -> str:
    return f"it says {quoted(found[0])}" if (found := _CONTINUED.search(last[-_END:])) else ""


def _trails(said: str, last: str, least: int) -> str:
    """Finds lines that end in a mark or a word after which something must follow."""
    mark = last.endswith(("...", *"…,;:，、；،：")) or (last.endswith("-") and last[-2:-1].isalpha())
    if not mark and not (last[-1:].isalpha() and _DANGLING.search(last[-_END:])):
        return ""
    return f"it ends in {quoted(last[-30:])}" if len(words(last)) >= least else ""


def _open_pair(said: str, last: str, least: int) -> str:
    """Finds a bracket or quotation mark of the last line that is not closed."""
    line = _EMOTICON.sub("", last)
    for opening, closing in _PAIRS.items():
        if opening in line and line.rfind(opening) > max(map(line.rfind, closing)):
            return f"{opening} is not closed in {quoted(line[-30:])}"
    if '"' not in line:
        return ""
    quotes = re.findall(r'(?<![\d\'])"', line)
    opened = line.rfind('"')
    is_open = len(quotes) % 2 == 1 and opened + 1 < len(line) and (opened == 0 or line[opened - 1].isspace())
    return f'" is not closed in {quoted(line[-30:])}' if is_open and line[-1] not in ENDS else ""


def _stops(said: str, last: str, least: int) -> str:
    """Finds a last sentence without a full stop after sentences that have one."""
    whole = last.rstrip(CLOSERS)
    if not whole or whole[-1] in ENDS or _WHOLE_WITHOUT_STOP.search(last[-_END:]):
        return ""
    tail = _after_last_stop(last)
    if not tail and _ITEM.match(last):
        # An item stops short if all items before it end in a full stop.
        items = [line.strip() for line in said.split("\n") if _ITEM.match(line)][:-1]
        tail = last if len(items) > 1 and all(item.rstrip(CLOSERS)[-1:] in ENDS for item in items) else ""
    long = len(words(tail)) >= min(_LEAST_TAIL, least)
    return f"it stops in {quoted(tail[-40:])}" if tail and long else ""


def _after_last_stop(line: str) -> str:
    """Return what follows the last sentence of a line that ends in a full stop. Empty if there is no such sentence."""
    for stop in reversed(list(_STOP.finditer(line))):
        before = line[: stop.start()]
        if not _ABBREVIATION.search(before[-12:]):
            return line[stop.end() :] if len(words(before)) >= _LEAST_SENTENCE else ""
    return ""


_CHECKS: tuple[Callable[[str, str, int], str], ...] = (_continued, _trails, _open_pair, _stops)

RULE = Rule("unfinished", "cut off, or without an end", True, judge)
