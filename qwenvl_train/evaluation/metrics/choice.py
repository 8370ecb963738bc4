"""Whether the right option of a multiple-choice question is chosen."""

import re
from collections.abc import Mapping
from string import ascii_uppercase

from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.words import normalized

_MARK = re.compile(r"(?:^|(?<=\s))\(?([A-Z])[).:]\s*", re.MULTILINE)
# The article A at the beginning of a sentence and the pronoun I are not letters of options.
_ALONE = r"(?<![A-Za-z0-9_'’])(?!^A\s+[a-z])(?!(?<=[.!?]\s)A\s+[a-z])(?!I\s+[a-z])([{letters}])(?![A-Za-z0-9_'’])"
_LETTERS = ascii_uppercase[:10]
"""The letters that an answer can choose if the question lists no options."""


def choice(answer: str, expected: str, question: Question) -> float:
    options = options_in(question.prompt)
    given = chosen_letter(answer, options)
    accepted = question.answers(expected)
    letters = {chosen_letter(one, options) for one in accepted} - {None}
    return float(given in letters if given and letters else normalized(answer) in map(normalized, accepted))


def options_in(prompt: str) -> dict[str, str]:
    """Return the options that a question lists as A, B, C and so on, by letter: the longest such list. Empty if there
    are fewer than two."""
    marks = list(_MARK.finditer(prompt))
    lists: list[dict[str, str]] = [{}]
    for index, mark in enumerate(marks):
        if mark[1] == "A":
            lists.append({})
        if mark[1] == ascii_uppercase[len(lists[-1]) % 26]:
            end = marks[index + 1].start() if index + 1 < len(marks) else len(prompt)
            lists[-1][mark[1]] = prompt[mark.end() : end].partition("\n")[0].strip()
    longest = max(lists, key=len)
    return longest if len(longest) > 1 else {}


def chosen_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that an answer chooses. None if it chooses none."""
    words = normalized(answer)
    for letter, text in options.items():
        if words and words == normalized(text):
            return letter
    letters = "".join(options) or _LETTERS
    if alone := re.fullmatch(rf"\W*([{letters}])\W*", answer, re.IGNORECASE):
        return alone[1].upper()
    for pattern in (
        rf"(?i:answer)\W{{0,3}}(?::|\b(?i:is)\b)\W{{0,4}}(?i:option\s+)?\W?([{letters}])(?![A-Za-z0-9_'’])",
        rf"[(\[]([{letters}])[)\]]",
        rf"^[^\w\n]*([{letters}])[.:]",
    ):
        if found := re.findall(pattern, answer, re.MULTILINE):
            return found[-1]
    if found := re.findall(_ALONE.format(letters=letters), _without(answer, options), re.MULTILINE):
        return found[-1]
    return _named_option(words, options)


def _without(answer: str, options: Mapping[str, str]) -> str:
    """Return an answer without the texts of options, since these can contain a letter that stands alone."""
    for text in sorted(filter(None, options.values()), key=len, reverse=True):
        answer = re.sub(re.escape(text), " ", answer, flags=re.IGNORECASE)
    return answer


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
