"""Whether the right option of a multiple-choice question is chosen."""

import re
from collections.abc import Mapping
from string import ascii_uppercase

from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.words import normalized

_MARK = re.compile(r"(?:^|(?<=\s))\(?([A-Z])[).:]\s*", re.MULTILINE)
_LETTERS = ascii_uppercase[:10]
"""The letters that an answer can choose if the question lists no options."""


def choice(answer: str, expected: str, question: Question) -> float:
    options = options_in(question.prompt)
    given = chosen_letter(answer, options)
    accepted = question.answers(expected)
    letters = {chosen_letter(one, options) for one in accepted} - {None}
    return float(given in letters if given and letters else normalized(answer) in map(normalized, accepted))


def options_in(prompt: str) -> dict[str, str]:
    """Return the options that a question lists as A, B, C and so on, by letter. Empty if there are fewer than two."""
    marks = list(_MARK.finditer(prompt))
    options: dict[str, str] = {}
    for index, mark in enumerate(marks):
        if mark[1] == "A":
            options = {}
        if mark[1] == ascii_uppercase[len(options)]:
            end = marks[index + 1].start() if index + 1 < len(marks) else len(prompt)
            options[mark[1]] = prompt[mark.end() : end].partition("\n")[0].strip()
    return options if len(options) > 1 else {}


def chosen_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that an answer chooses. None if it chooses none."""
    words = normalized(answer)
    for letter, text in options.items():
        if words and words == normalized(text):
            return letter
    letters = "".join(options) or _LETTERS
    if alone := re.fullmatch(rf"\W*([{letters}])\W*", answer, re.IGNORECASE):
        return alone[1].upper()
    # A and I are also words, if another word follows.
    letter = rf"([{letters}])(?![A-Za-z0-9_'’])(?!(?<=[AI])\s+[a-z])"
    for pattern in (
        rf"(?i:answer)\W{{0,3}}(?::|\b(?i:is)\b)\W{{0,4}}(?i:option\s+)?\W?{letter}",
        rf"[(\[]([{letters}])[)\]]",
        rf"^\W*([{letters}])[.:]",
        rf"(?<![A-Za-z0-9_'’]){letter}",
    ):
        if found := re.findall(pattern, answer, re.MULTILINE):
            return found[-1]
    return _named_option(words, options)


def _named_option(words: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option whose text an answer contains: the last one, and the longer one of two that
    overlap."""
    found = []
    for letter, text in options.items():
        if name := normalized(text):
            found += [(one.end(), len(name), letter) for one in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", words)]
    return max(found)[2] if found else None


CHOICE = Metric(
    "choice",
    "share of answers that choose the right option, by its letter (alone, after “answer is”, in brackets, before a "
    "full stop) or its text, the last one if several; as MMMU and lmms-eval, but an answer without a choice is wrong",
    choice,
)
