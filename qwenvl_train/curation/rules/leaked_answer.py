"""Answers that the question gives away."""

from collections.abc import Sequence

from pydantic import PositiveFloat, PositiveInt

from qwenvl_train.curation.forms import form_of
from qwenvl_train.curation.questions import asks_for_given_text, gives_options, is_yes_or_no
from qwenvl_train.curation.rules.rule import Measure, Rule, RuleSection
from qwenvl_train.curation.text import words
from qwenvl_train.curation.verdict import Verdict, above, quoted
from qwenvl_train.curation.view import AnswerView, RowView


class LeakedAnswer(RuleSection):
    max_share: PositiveFloat
    """The largest share of the words of an answer that may stand in the user's text, in the same order."""
    min_words: PositiveInt
    """Answers with fewer words are not judged, since questions have many of them by chance."""
    sequence: PositiveInt
    """The number of consecutive words that count as the same text."""


def judge(row: RowView, settings: LeakedAnswer) -> Verdict | None:
    judged = [answer for answer in row.answers if _is_judged(answer, settings.min_words)]
    if not judged:
        return None
    shares = [(shared_share(answer.passage.words, words(answer.asked), settings.sequence), answer) for answer in judged]
    share, answer = max(shares, key=lambda one: one[0])
    return above(share, settings.max_share, lambda: f"{share:.0%} of {quoted(answer.text)} are in the question")


def shared_share(answer: Sequence[str], asked: Sequence[str], count: int) -> float:
    """Return the share of the words of an answer that are in sequences of `count` words which the question has."""
    if len(asked) < count or len(answer) < count:
        return 0.0
    given = set(zip(*(asked[start:] for start in range(count)), strict=False))
    sequences = list(zip(*(answer[start:] for start in range(count)), strict=False))
    if given.isdisjoint(sequences):
        return 0.0
    covered = bytearray(len(answer))
    for start, sequence in enumerate(sequences):
        if sequence in given:
            covered[start : start + count] = b"\1" * count
    return sum(covered) / len(answer)


def _is_judged(answer: AnswerView, least: int) -> bool:
    if len(answer.passage.words) < least or not answer.asked.strip() or form_of(answer.text) != "prose":
        return False
    return not (asks_for_given_text(answer.question) or gives_options(answer.question) or is_yes_or_no(answer.text))


RULE = Rule(
    "leaked_answer",
    "answers that stand in the question",
    False,
    judge,
    measure=Measure("share of an answer in the question", "%"),
)
