"""The fields of key information that are right."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from qwenvl_train.evaluation.metrics.json_text import json_in, readable_json_in
from qwenvl_train.evaluation.metrics.metric import Metric, Part, Question
from qwenvl_train.evaluation.metrics.words import collapsed


def fields(answer: str, expected: str, question: Question) -> dict[str, Part | float]:
    valid = json_in(answer) is not None
    given, wanted = Counter(_fields(readable_json_in(answer))), Counter(_fields(json_in(expected)))
    right = (given & wanted).total()
    counted = given.total() + wanted.total()
    return {
        # A sample without fields in both texts is one field that is right.
        "f1": Part(2 * right, counted) if counted else Part(2, 2),
        **({"accuracy": Part(right, wanted.total())} if wanted else {}),
        "all_right": float(given == wanted and valid),
        "valid_json": float(valid),
    }


def _fields(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the value of each field. Lists add nothing to a path, so that their order does not count."""
    match tree:
        case dict():
            for key, value in tree.items():
                yield from _fields(value, f"{path}.{key}" if path else str(key))
        case list():
            for value in tree:
                yield from _fields(value, path)
        case None:
            return
        case _ if words := collapsed(str(tree)):
            yield path, words


FIELDS = Metric(
    "fields",
    "micro F1 over pairs of key path and value, as Donut counts them for CORD (order of lists ignored, case kept); "
    "accuracy is the share of expected fields that are right, all_right that of answers without any mistake; JSON that "
    "is broken is read up to the fault",
    fields,
)
