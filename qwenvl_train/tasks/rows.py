"""Raw rows in the form `messages`, as converters make them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwenvl_train.tasks.converter import Raw


def answer_row(id: str, image: Path, question: str, answer: Any, **columns: Any) -> Raw:
    """Return a row with one image, a question about it and its answer, which is a text or a list of parts. Columns that
    are empty are left out."""
    turns = [{"role": "user", "content": f"<image>{question}"}, {"role": "assistant", "content": answer}]
    row: Raw = {"id": id, "messages": turns, "images": [str(image)]}
    return row | {key: value for key, value in columns.items() if value not in (None, [], {}, "")}


def listing(regions: Sequence[tuple[Sequence[float], str]]) -> list[dict[str, Any]]:
    """Return the parts of an answer that lists boxes and points with their labels."""
    objects = [
        {("bbox_2d" if len(numbers) == 4 else "point_2d"): list(numbers), "label": label} for numbers, label in regions
    ]
    return [{"type": "objects", "objects": objects}]
