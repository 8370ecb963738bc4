"""Answers that repeat the same sentences."""

from pydantic import PositiveFloat, PositiveInt

from qwenvl_train.curation.forms import form_of
from qwenvl_train.curation.rules.repetition import repeated_pieces
from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict, above, quoted
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
    pieces = [passage.sentences for answer in answers for passage in answer.passages]
    found = [repeated_pieces(one, settings.min_length) for one in pieces if len(one) >= settings.min_sentences]
    if not found:
        return None
    share, piece = max(found)
    return above(share, settings.max_share, f"{share:.0%} of the text are repeated sentences, such as {quoted(piece)}")


RULE = Rule("repeated_sentences", "the same sentences again", True, judge)
