"""ScreenSpot-v2 and ScreenSpot-Pro: a click on an element that is described."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.agents.actions import Size, at
from qwenvl_train.tasks.agents.files import has_keys, point_of, records_in, screenshot, text_of
from qwenvl_train.tasks.agents.steps import Step, asked, row_of_step
from qwenvl_train.tasks.boxes import inside, middle, size_of
from qwenvl_train.tasks.computer_use.forms import refuse_others
from qwenvl_train.tasks.converter import Converter, Raw, Records, RowOptions, rows_or_refused
from qwenvl_train.tasks.numbers import numbers


def _is_v2(source: Path) -> bool:
    return has_keys(source, "img_filename", "bbox", "instruction") and not _is_pro(source)


def _is_pro(source: Path) -> bool:
    return has_keys(source, "img_filename", "bbox", "instruction", "img_size")


def _all_rows(source: Path, options: RowOptions, is_pro: bool) -> Records:
    refuse_others(options)
    for where, record in records_in(source):
        yield from rows_or_refused(where, _rows(record, source, where, options, is_pro))


def _rows(record: Any, source: Path, where: str, options: RowOptions, is_pro: bool) -> Iterator[Raw]:
    if not isinstance(record, dict):
        raise UserError("it is no object")
    image = screenshot(record, "img_filename", source, options)
    size = size_of(image)
    box = inside(_corners(record, size, is_pro), size, "the box")
    key = str(record.get("id", where.rpartition("/")[2]))
    step = Step(image, (at("left_click", middle(box), size),), targets=(box,))
    yield row_of_step(key, step, "computer_use", options, asked(key, text_of(record, "instruction"), [], options))


def _corners(record: dict[str, Any], size: Size, is_pro: bool) -> tuple[float, float, float, float]:
    """Return the corners of the box: of x, y, width and height in ScreenSpot-v2, and of corners in an image of img_size
    in ScreenSpot-Pro."""
    x, y, right, bottom = numbers(record.get("bbox"), 4, "bbox")
    if not is_pro:
        return x, y, x + right, y + bottom
    told = point_of(record.get("img_size"), "img_size")
    if min(told) <= 0:
        raise UserError(f"img_size is {record['img_size']!r}; expected width and height")
    across, down = size[0] / told[0], size[1] / told[1]
    return x * across, y * down, right * across, bottom * down


V2 = Converter(
    "screenspot_v2",
    "ScreenSpot-v2, with boxes as x, y, width, height",
    _is_v2,
    partial(_all_rows, is_pro=False),
    uses=("system",),
)
PRO = Converter(
    "screenspot_pro",
    "ScreenSpot-Pro, with boxes as corners, and img_size",
    _is_pro,
    partial(_all_rows, is_pro=True),
    uses=("system",),
)
