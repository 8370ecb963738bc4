"""Judges rows one by one, and arranges the judgements about consecutive rows as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from qwenvl_train.curation.duplicates import PERMUTATIONS, Signature, minhashes, signature
from qwenvl_train.curation.rules import malformed_boxes
from qwenvl_train.curation.text import words
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.formats.objects import InvertedBox
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.verbs.filter.settings import FilterSection

UNUSABLE, DUPLICATES = "unusable", "duplicates"
"""The names under which rows are left out that no training can use, and that are nearly the same as others. Both stand
beside the names of rules."""
VALUE, EVIDENCE = "value", "evidence"
HAS_MEDIA = "has_media"
TEXT_SIGNATURE, PICTURE_SIGNATURE, REST_SIGNATURE = "signature_text", "signature_pictures", "signature_rest"


@dataclass(frozen=True)
class JudgedRow:
    id: str | None
    verdicts: Mapping[str, Verdict]
    """The verdicts by rule, of the rules that apply to the row."""
    has_media: bool = False
    words: tuple[int, int] | None = None
    """The number of words of the questions and of the answers. None for a row that cannot be read."""
    signature: Signature | None = field(default=None, compare=False)
    """What is compared with other rows, or None if nothing is."""


def judge_row(samples: Samples, index: int, section: FilterSection) -> JudgedRow:
    """Return the judgements about one row, without those that need other rows."""
    try:
        view = RowView(samples[index])
    except InvertedBox as error:
        by_rule = section.malformed_boxes.use == "drop"
        return _unread(samples.id(index), malformed_boxes.RULE.name if by_rule else UNUSABLE, error)
    except UserError as error:
        return _unread(samples.id(index), UNUSABLE, error)
    verdicts = {UNUSABLE: Verdict(False)}
    for rule, settings in section.used:
        if (verdict := rule.judge(view, settings)) is not None:
            verdicts[rule.name] = verdict
    duplicates = section.duplicates
    exact = duplicates.min_similarity == 1
    by_text = duplicates.by != "images"
    compared = signature(view, duplicates.words, exact, by_text) if duplicates.use != "off" else None
    return JudgedRow(view.sample.id, verdicts, bool(view.sample.media), _word_counts(view), compared)


def _unread(id: str | None, rule: str, error: UserError) -> JudgedRow:
    """Return the judgement about a row that cannot be read, which falls to a rule."""
    return JudgedRow(id, {UNUSABLE: Verdict(False), rule: Verdict(True, None, message_of(error))})


def _word_counts(view: RowView) -> tuple[int, int]:
    questions = sum(len(words(text)) for text in view.questions)
    return questions, sum(len(answer.passage.words) for answer in view.answers)


def table_of(rows: Sequence[JudgedRow], rules: Sequence[str], compared: bool) -> pa.Table:
    """Return the judgements as a table: for each rule whether the row falls to it, the figure that it has measured, and
    the evidence. They are null for a row that the rule does not apply to.

    Args:
        compared: Whether the table has the signatures.
    """
    columns = {
        "id": pa.array([row.id for row in rows], pa.string()),
        HAS_MEDIA: pa.array([row.has_media for row in rows], pa.bool_()),
        "question_words": pa.array([row.words and row.words[0] for row in rows], pa.int32()),
        "answer_words": pa.array([row.words and row.words[1] for row in rows], pa.int32()),
    }
    for rule in rules:
        columns |= columns_of([row.verdicts.get(rule) for row in rows], rule)
    if compared:
        found = [row.signature for row in rows]
        texts = iter(minhashes([one.sequences for one in found if one]))
        columns[TEXT_SIGNATURE] = pa.array(
            [one and next(texts).tobytes() for one in found], pa.binary(4 * PERMUTATIONS)
        )
        columns[REST_SIGNATURE] = pa.array([one.rest if one else 0 for one in found], pa.uint64())
        columns[PICTURE_SIGNATURE] = pa.array([one and one.pictures for one in found], pa.list_(pa.uint64()))
    return pa.table(columns)


def columns_of(verdicts: Sequence[Verdict | None], rule: str) -> dict[str, pa.Array]:
    """Return the three columns of a rule."""
    values = [one.value if one else None for one in verdicts]
    return {
        rule: pa.array([one.falls if one else None for one in verdicts], pa.bool_()),
        f"{rule}.{VALUE}": pa.array(values, pa.float32()),
        f"{rule}.{EVIDENCE}": pa.array([one.evidence or None if one else None for one in verdicts], pa.string()),
    }
