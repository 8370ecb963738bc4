"""The rates of wrong characters and wrong words."""

import jiwer

from qwenvl_train.evaluation.metrics.metric import Metric, Part, Question


def cer(answer: str, expected: str, question: Question) -> dict[str, Part]:
    return {"cer": _least([_rate(jiwer.process_characters(one, answer)) for one in question.answers(expected)])}


def wer(answer: str, expected: str, question: Question) -> dict[str, Part]:
    return {"wer": _least([_rate(jiwer.process_words(one, answer)) for one in question.answers(expected)])}


def _rate(found: jiwer.CharacterOutput | jiwer.WordOutput) -> Part:
    edits = found.substitutions + found.deletions + found.insertions
    return Part(edits, found.hits + found.substitutions + found.deletions)


def _least(rates: list[Part]) -> Part:
    return min(rates, key=lambda rate: rate.value)


CER = Metric(
    "cer",
    "jiwer's character error rate: edits / characters of the expected answers, over all samples together, case kept; "
    "lower is better and it can exceed 1",
    cer,
    higher_is_better=False,
)
WER = Metric(
    "wer",
    "jiwer's word error rate: edits / words of the expected answers, over all samples together, case and punctuation "
    "kept; lower is better and it can exceed 1",
    wer,
    higher_is_better=False,
)
