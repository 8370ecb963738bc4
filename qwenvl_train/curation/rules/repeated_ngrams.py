"""Answers that repeat the same words again and again."""

from pydantic import PositiveFloat, PositiveInt

from qwenvl_train.curation.rules.repetition import repeated_words
from qwenvl_train.curation.rules.rule import Measure, Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict, above, quoted
from qwenvl_train.curation.view import RowView


class RepeatedNgrams(RuleSection):
    words: PositiveInt
    """The number of consecutive words that count as a repetition if they occur again. In scripts without spaces, each
    character is a word."""
    max_share: PositiveFloat
    """The largest share of an answer, in characters of words, that repeated sequences may cover."""
    min_words: PositiveInt
    """Answers with fewer words are not judged."""


def judge(row: RowView, settings: RepeatedNgrams) -> Verdict | None:
    passages = [passage for answer in row.answers for passage in answer.passages]
    found = [
        repeated_words(passage.words, settings.words)
        for passage in passages
        if len(passage.words) >= settings.min_words
    ]
    if not found:
        return None
    share, sequence = max(found)
    return above(share, settings.max_share, lambda: f"{share:.0%} of the words repeat, such as {quoted(sequence)}")


RULE = Rule(
    "repeated_ngrams", "the same words again and again", True, judge, measure=Measure("share of repeated words", "%")
)
