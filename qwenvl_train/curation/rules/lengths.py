"""Questions and answers that are too short or too long, and conversations of too many turns."""

from collections.abc import Iterator
from functools import cached_property

from pydantic import NonNegativeInt, PositiveInt

from qwenvl_train.curation.rules.rule import Measure, Rule, RuleSection
from qwenvl_train.curation.text import words
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView


class Lengths(RuleSection):
    min_question_words: NonNegativeInt | None
    max_question_words: PositiveInt | None
    max_question_characters: PositiveInt | None
    min_answer_words: NonNegativeInt | None
    max_answer_words: PositiveInt | None
    max_answer_characters: PositiveInt | None
    """Thoughts do not count. An answer that is a tool call, a box or a point has no words, and may be as short as it
    is."""
    max_turns: PositiveInt | None
    """The number of questions. Null sets no limit, here as for the other limits."""

    @cached_property
    def sets_a_limit(self) -> bool:
        return any(value is not None for name, value in self if name != "use")


def judge(row: RowView, settings: Lengths) -> Verdict | None:
    if not settings.sets_a_limit:
        return None
    fault = next(_faults(row, settings), "")
    return Verdict(bool(fault), float(max(len(answer.text) for answer in row.answers)), fault)


def _faults(row: RowView, settings: Lengths) -> Iterator[str]:
    yield from _too_many(len(row.questions), settings.max_turns, "questions", "the conversation")
    for question in row.questions:
        yield from _too_many(len(question), settings.max_question_characters, "characters", "a question")
        if settings.min_question_words is not None or settings.max_question_words is not None:
            count = len(words(question))
            yield from _too_many(count, settings.max_question_words, "words", "a question")
            yield from _too_few(count, settings.min_question_words, "a question")
    for answer in row.answers:
        yield from _too_many(len(answer.text), settings.max_answer_characters, "characters", "an answer")
        if answer.ends_in_text and (settings.min_answer_words is not None or settings.max_answer_words is not None):
            count = len(words(answer.text))
            yield from _too_many(count, settings.max_answer_words, "words", "an answer")
            yield from _too_few(count, settings.min_answer_words, "an answer")


def _too_many(count: int, limit: int | None, unit: str, what: str) -> Iterator[str]:
    if limit is not None and count > limit:
        yield f"{what} has {count} {unit}, more than {limit}"


def _too_few(count: int, limit: int | None, what: str) -> Iterator[str]:
    if limit is not None and count < limit:
        yield f"{what} has {count} words, fewer than {limit}"


RULE = Rule(
    "lengths", "too short, too long, or too many turns", False, judge, measure=Measure("longest answer", "characters")
)
