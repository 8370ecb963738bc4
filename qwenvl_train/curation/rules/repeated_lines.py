"""Answers that repeat the same lines."""

from pydantic import PositiveFloat, PositiveInt

from qwenvl_train.curation.rules.repetition import of_pieces
from qwenvl_train.curation.rules.rule import Measure, Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView


class RepeatedLines(RuleSection):
    max_share: PositiveFloat
    """The largest share of the characters of an answer that may be in lines that occurred before."""
    min_lines: PositiveInt
    """Answers with fewer lines are not judged."""
    min_length: PositiveInt
    """Shorter lines, in characters, do not count as repeated."""


def judge(row: RowView, settings: RepeatedLines) -> Verdict | None:
    texts = (passage.lines for answer in row.answers for passage in answer.passages)
    return of_pieces(texts, settings.min_lines, settings.min_length, settings.max_share, "lines")


RULE = Rule("repeated_lines", "the same lines again", True, judge, measure=Measure("share of repeated lines", "%"))
