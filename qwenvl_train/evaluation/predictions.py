"""The rows of predictions.jsonl: held-out samples with the answers that a model generates to them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.sample import Sample, Video
from qwenvl_train.evaluation.answering import media_name, samples_to_answer
from qwenvl_train.evaluation.batches import batches_of
from qwenvl_train.evaluation.generation import Answer, plain_regions

Row = dict[str, Any]
BATCH_SIZE = 16
"""Number of samples that are answered together during a training run."""


@dataclass(frozen=True)
class Prediction:
    answer: Answer

    @property
    def place(self) -> tuple[str, int, int]:
        """What identifies the answer."""
        request = self.answer.request
        return request.sample.source, request.sample.line, request.turn

    def row(self, when: str, stored: Row | None) -> Row:
        """Return the row of this answer. `when` is before or after, for the time at which the answer was generated.
        `stored` is the row that the file has so far, from which the other answer is taken."""
        answer, request = self.answer, self.answer.request
        sample = request.sample
        stored = stored or {}
        of_stored = stored.get("regions", {})
        regions = {"expected": plain_regions(answer.expected_regions)}
        regions |= {"before": of_stored.get("before", []), "after": of_stored.get("after", [])}
        regions[when] = plain_regions(answer.regions)
        videos = [media_name(part) for part in sample.chosen_conversation.media if isinstance(part, Video)]
        return {
            "id": sample.id,
            "source": sample.source,
            "line": sample.line,
            "turn": request.turn,
            "images": [image.content for image in sample.chosen_conversation.images if isinstance(image.content, str)],
            **({"videos": videos} if videos else {}),
            "prompt": request.text,
            "expected": request.expected,
            **({} if request.rejected is None else {"rejected": request.rejected}),
            "before": stored.get("before"),
            "after": stored.get("after"),
            when: answer.text,
            **({"regions": regions} if any(regions.values()) else {}),
        }


def place_of(row: Row) -> tuple[str, int, int]:
    """Return what identifies the answer of a stored row."""
    return row["source"], row["line"], row.get("turn", 1)


def predictions(
    rows: Rows, count: int, seed: int, answers_to: Callable[[Sequence[Sample]], list[Answer]]
) -> Iterator[Prediction]:
    """Yield the answers to `count` usable samples, which are spread over the sources.

    Args:
        answers_to: Returns the answers to some samples, without those that cannot be decoded. The evaluation, which
            runs first, has recorded their problems.
    """
    samples = {index: rows.samples[index] for index in samples_to_answer(rows, count, seed)}
    answers: list[Answer] = []
    for batch in batches_of(samples, rows.lengths.tokens, BATCH_SIZE):
        answers += answers_to([samples[index] for index in batch])
    order = {(sample.source, sample.line): place for place, sample in enumerate(samples.values())}
    for answer in sorted(answers, key=lambda answer: order[answer.request.sample.source, answer.request.sample.line]):
        yield Prediction(answer)
