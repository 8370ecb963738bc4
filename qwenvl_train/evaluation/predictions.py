"""The rows of predictions.jsonl: held-out samples with the answers that a model generates to them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.sample import Sample
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.generation import Answer, AnswerGenerator


@dataclass(frozen=True)
class Prediction:
    sample: Sample
    answer: Answer

    def as_dict(self) -> dict[str, Any]:
        """Return what identifies the sample, the question and the expected answer, without the generated one."""
        sample, answer = self.sample, self.answer
        return {
            "id": sample.id,
            "source": sample.source,
            "line": sample.line,
            "images": [image.content for image in sample.chosen_conversation.images if isinstance(image.content, str)],
            "prompt": answer.prompt,
            "expected": answer.expected,
            **({} if answer.rejected is None else {"rejected": answer.rejected}),
        }


def predictions(rows: Rows, count: int, generate: AnswerGenerator) -> Iterator[Prediction]:
    """Yield the answers to the first `count` usable samples, without those that cannot be decoded."""
    for index in rows.lengths.usable.nonzero()[0][:count]:
        sample = rows.samples[int(index)]
        try:
            answer = generate(sample)
        except UserError:
            continue  # the evaluation, which runs first, has recorded the problem
        yield Prediction(sample, answer)
