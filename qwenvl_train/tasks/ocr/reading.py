"""The rows of an image with text, from its lines and its key information."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from qwenvl_train.data.sample import Box
from qwenvl_train.errors import UserError
from qwenvl_train.tasks.boxes import inside
from qwenvl_train.tasks.converter import Raw, RowOptions
from qwenvl_train.tasks.rows import answer_row, listing

FORMS = ("text", "spotting", "boxes", "fields")
"""The lines as text, with boxes as in Qwen's cookbook, or with boxes in the notation of grounding; key information."""
_METRICS = {"text": ["lines_cer"], "fields": ["fields"]}
_METRICS_OF_BOXES = ["layout", "lines_cer"]


class Line(NamedTuple):
    text: str
    box: Box | None
    """`x1, y1, x2, y2` in pixels of the image."""


@dataclass(frozen=True)
class Reading:
    key: str
    """The id of its row."""
    image: Path
    lines: Sequence[Line] = ()
    """In the order in which they are read."""
    fields: Mapping[str, Any] = field(default_factory=dict)


def reading_row(reading: Reading, options: RowOptions) -> Raw:
    needed, found = ("fields", reading.fields) if options.form == "fields" else ("lines", reading.lines)
    if not found:
        raise UserError(f"it has no {needed}, which the form {options.form} needs")
    try:
        names = {"format": json.dumps(_emptied(reading.fields), ensure_ascii=False)}
        answer, columns = _answer(reading, options.form)
    except (ValueError, RecursionError):
        raise UserError("its fields are nested too deep, or have NaN or Infinity, which are not valid JSON") from None
    question = options.prompts.ask(reading.key, **names)
    metrics = _METRICS.get(options.form, _METRICS_OF_BOXES)
    return answer_row(reading.key, reading.image, question, answer, metric=metrics, **columns)


def upright_box(corners: Sequence[float], size: tuple[int, int], what: str) -> Box:
    """Return the smallest upright box around the corners `x1, y1, x2, y2, …` of a region, which can be rotated."""
    across, down = corners[::2], corners[1::2]
    return inside((min(across), min(down), max(across), max(down)), size, what)


def _answer(reading: Reading, form: str) -> tuple[Any, dict[str, Any]]:
    """Return the answer, and the columns that it needs."""
    if form == "fields":
        return f"```json\n{json.dumps(reading.fields, ensure_ascii=False, indent=2, allow_nan=False)}\n```", {}
    if form == "text":
        return "\n".join(line.text for line in reading.lines), {}
    boxed = [(line.box, line.text) for line in reading.lines if line.box is not None]
    if len(boxed) < len(reading.lines):
        raise UserError(f"a line has no box, which the form {form} needs")
    if form == "boxes":
        return listing(boxed), {}
    lines = ",\n".join(
        f'\t{{"bbox_2d": [<bbox>], "text_content": {json.dumps(text, ensure_ascii=False)}}}' for _, text in boxed
    )
    objects = {"ref": [text for _, text in boxed], "bbox": [list(box) for box, _ in boxed], "separator": ", "}
    return f"```json\n[\n{lines}\n]\n```", {"objects": objects}


def _emptied(value: Any) -> Any:
    """Return the shape of key information: keys with empty values, and one entry of each list, with the keys of all."""
    match value:
        case dict():
            return {key: _emptied(inner) for key, inner in value.items()}
        case list() if value and all(isinstance(one, dict) for one in value):
            keys = dict.fromkeys(chain.from_iterable(value))
            return [{key: _emptied(next(one[key] for one in value if key in one)) for key in keys}]
        case list():
            return []
    return ""
