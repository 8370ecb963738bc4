"""The rows of predictions.jsonl: held-out samples with the answers that a model generates to them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.sample import Region, Sample
from qwenvl_train.data.spread import spread
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.generation import Answer, AnswerGenerator

Row = dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    sample: Sample
    answer: Answer

    @property
    def place(self) -> tuple[str, int, int]:
        """What identifies the answer."""
        return self.sample.source, self.sample.line, self.answer.turn

    def row(self, when: str, stored: Row | None) -> Row:
        """Return the row of this answer. `when` is before or after, for the time at which the answer was generated.
        `stored` is the row that the file has so far, from which the other answer is taken."""
        sample, answer = self.sample, self.answer
        stored = stored or {}
        of_stored = stored.get("regions", {})
        regions = {"expected": _plain(answer.expected_regions)}
        regions |= {"before": of_stored.get("before", []), "after": of_stored.get("after", [])}
        regions[when] = _plain(answer.generated_regions)
        return {
            "id": sample.id,
            "source": sample.source,
            "line": sample.line,
            "turn": answer.turn,
            "images": [image.content for image in sample.chosen_conversation.images if isinstance(image.content, str)],
            "prompt": answer.prompt,
            "expected": answer.expected,
            **({} if answer.rejected is None else {"rejected": answer.rejected}),
            "before": stored.get("before"),
            "after": stored.get("after"),
            when: answer.generated,
            **({"regions": regions} if any(regions.values()) else {}),
        }


def place_of(row: Row) -> tuple[str, int, int]:
    """Return what identifies the answer of a stored row."""
    return row["source"], row["line"], row.get("turn", 1)


def predictions(rows: Rows, count: int, seed: int, generate: AnswerGenerator) -> Iterator[Prediction]:
    """Yield the answers to `count` usable samples, which are spread over the sources. Leave out samples that cannot be
    decoded."""
    usable = rows.lengths.usable
    files = [indices for _, indices in rows.samples.files()]
    sources = [(mine.start + usable[mine.start : mine.stop].nonzero()[0]).tolist() for mine in files]
    for index in spread(sources, count, seed):
        sample = rows.samples[index]
        try:
            answers = generate(sample)
        except UserError:
            continue  # the evaluation, which runs first, has recorded the problem
        for answer in answers:
            yield Prediction(sample, answer)


def _plain(regions: Sequence[Region]) -> list[Row]:
    return [
        {"label": region.label, "coordinates": [round(value, 1) for value in region.coordinates]} for region in regions
    ]
