"""Answers that repeat the same sentences."""

from pydantic import PositiveFloat, PositiveInt

from qwenvl_train.curation.forms import form_of
from qwenvl_train.curation.rules.repetition import of_pieces
from qwenvl_train.curation.rules.rule import Measure, Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView


class RepeatedSentences(RuleSection):
    max_share: PositiveFloat
    """The largest share of the characters of an answer that may be in sentences that occurred before."""
    min_sentences: PositiveInt
    """Answers with fewer sentences are not judged."""
    min_length: PositiveInt
    """Shorter sentences, in characters, do not count as repeated."""


def judge(row: RowView, settings: RepeatedSentences) -> Verdict | None:
    answers = [answer for answer in row.answers if form_of(answer.text) != "json"]
    texts = (passage.sentences for answer in answers for passage in answer.passages)
    return of_pieces(texts, settings.min_sentences, settings.min_length, settings.max_share, "sentences")


RULE = Rule(
    "repeated_sentences", "the same sentences again", True, judge, measure=Measure("share of repeated sentences", "%")
)
