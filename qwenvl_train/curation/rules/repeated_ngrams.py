"""Answers that repeat the same words again and again."""

from collections import Counter

from pydantic import PositiveFloat, PositiveInt

from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.text import words
from qwenvl_train.curation.verdict import Verdict, above, quoted
from qwenvl_train.curation.view import RowView


class RepeatedNgrams(RuleSection):
    words: PositiveInt
    """The number of consecutive words that count as a repetition if they occur again."""
    max_share: PositiveFloat
    """The largest share of the words of an answer that repeated sequences may cover."""
    min_words: PositiveInt
    """Answers with fewer words are not judged."""


def judge(row: RowView, settings: RepeatedNgrams) -> Verdict | None:
    found = [repeated_share(text, settings.words) for text in _texts(row) if len(words(text)) >= settings.min_words]
    if not found:
        return None
    share, sequence = max(found)
    return above(share, settings.max_share, f"{share:.0%} of the words repeat, such as {quoted(sequence)}")


def repeated_share(text: str, count: int) -> tuple[float, str]:
    """Return the share of words in sequences of `count` words that occurred before, and the most frequent sequence."""
    given = words(text)
    sequences = [tuple(given[start : start + count]) for start in range(len(given) - count + 1)]
    seen: Counter[tuple[str, ...]] = Counter()
    covered = bytearray(len(given))
    for start, sequence in enumerate(sequences):
        if seen[sequence]:
            covered[start : start + count] = b"\1" * count
        seen[sequence] += 1
    most = max(seen, key=lambda sequence: seen[sequence], default=())
    return sum(covered) / max(1, len(given)), " ".join(most)


def _texts(row: RowView) -> list[str]:
    return [text for answer in row.answers for text in (answer.thoughts, answer.text) if text]


RULE = Rule("repeated_ngrams", "the same words again and again", True, judge)
