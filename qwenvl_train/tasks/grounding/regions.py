"""Rows about objects in an image, from their boxes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from qwenvl_train.tasks.boxes import middle
from qwenvl_train.tasks.converter import Raw, RowOptions
from qwenvl_train.tasks.rows import answer_row, listing

FORMS = ("boxes", "points", "boxes_by_label", "points_by_label")
"""All objects of an image in one answer, or those of one label, as boxes or as the points in their middle."""


class LabelledBox(NamedTuple):
    box: tuple[float, float, float, float]
    """`x1, y1, x2, y2` in pixels of the image."""
    label: str


def rows_of_image(key: str, image: Path, objects: Iterable[LabelledBox], options: RowOptions) -> Iterator[Raw]:
    """Yield the rows of an image. Its objects are listed from the top to the bottom, and from left to right."""
    ordered = sorted(objects, key=lambda one: (one.box[1], one.box[0], one.label))
    named = [LabelledBox(one.box, options.named(one.label)) for one in ordered]
    labels = list(dict.fromkeys(one.label for one in named))
    if not options.form.endswith("_by_label"):
        yield _row(key, image, named, ", ".join(labels), options)
        return
    for label in labels:
        yield _row(f"{key}/{label}", image, [one for one in named if one.label == label], label, options)


def _row(key: str, image: Path, objects: Sequence[LabelledBox], labels: str, options: RowOptions) -> Raw:
    points = options.form.startswith("points")
    regions = [(middle(one.box) if points else one.box, one.label) for one in objects]
    return answer_row(key, image, options.prompts.ask(key, labels=labels, label=labels), listing(regions))
