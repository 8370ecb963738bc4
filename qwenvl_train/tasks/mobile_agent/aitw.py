"""Android in the Wild and Android in the Zoo as JSON: a list of steps, with the codes of actions of the former. Points
are (y, x) as fractions of the screen."""

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from qwenvl_train.data.sample import Box
from qwenvl_train.errors import UserError
from qwenvl_train.tasks.agents.actions import (
    Arguments,
    Point,
    Size,
    at,
    button,
    ended,
    long_press,
    swipe,
    wait,
    written,
)  # fmt: skip
from qwenvl_train.tasks.agents.files import (
    has_keys,
    json_files,
    list_of,
    optional_text,
    point_of,
    screenshot,
    text_of,
)  # fmt: skip
from qwenvl_train.tasks.agents.steps import USED, Episode, Step, rows_of_episodes, steps_of
from qwenvl_train.tasks.boxes import size_of
from qwenvl_train.tasks.converter import Converter, Records, Refused, RowOptions
from qwenvl_train.tasks.files import records_of
from qwenvl_train.tasks.numbers import numbers

TAP = 0.04
"""The distance between touch and lift, as a fraction of the screen, up to which they are a tap: AitW's."""
ENLARGED = 1.2
"""The factor by which boxes are enlarged around the point that they may be the targets of: AitZ's and Qwen's."""


def matches(source: Path) -> bool:
    return has_keys(source, "episode_id", "result_action_type", "result_touch_yx")


def rows(source: Path, options: RowOptions) -> Records:
    known: set[str | None] = set()
    for path in json_files(source):
        for id, steps in groupby(records_of(path), key=lambda one: _id_of(one[1])):
            found = list(steps)
            where = f"{path}, episode {id}" if id is not None else found[0][0]
            if id is not None and id in known:
                yield Refused(where, f"{found[0][0]} comes after another episode; put all steps of one together")
                continue
            known.add(id)
            yield from rows_of_episodes(where, _episodes(id, found, source, options), "mobile_use", options)


def _id_of(record: Any) -> str | None:
    id = record.get("episode_id") if isinstance(record, dict) else None
    return None if id is None else str(id)


def _episodes(id: str | None, records: list[tuple[str, Any]], source: Path, options: RowOptions) -> Iterator[Episode]:
    if id is None:
        raise UserError("it has no episode_id")
    steps = steps_of((record for _, record in records), lambda record: _step(record, source, options))
    yield Episode(id, text_of(records[0][1], "instruction", "goal", "goal_info"), steps)


def _step(record: Mapping[str, Any], source: Path, options: RowOptions) -> Step:
    image = screenshot(record, "image_path", source, options)
    size = size_of(image)
    call = _call(record, size)
    targets: tuple[Box, ...] = ()
    if call["action"] in ("click", "long_press") and record.get("ui_positions"):
        x, y = call["coordinate"]["point_2d"]
        targets = _around((x, y), record["ui_positions"], size)
    said = optional_text(record, "coat_action_desc", "low_instruction")
    return Step(image, (call,), said, optional_text(record, "coat_action_think"), targets)


def _call(record: Mapping[str, Any], size: Size) -> Arguments:
    match record.get("result_action_type"):
        case 0:
            return long_press(_pixels(record, "result_touch_yx", size), size)
        case 1:
            return wait()
        case 3:
            return written(text_of(record, "result_action_text"))
        case 4:
            touch, lift = (point_of(record.get(key), key) for key in ("result_touch_yx", "result_lift_yx"))
            start = _pixels(record, "result_touch_yx", size)
            if math.dist(touch, lift) <= TAP:
                return at("click", start, size)
            return swipe(start, _pixels(record, "result_lift_yx", size), size)
        case 5:
            return button("Back")
        case 6:
            return button("Home")
        case 7:
            return button("Enter")
        case 10:
            return ended("success")
        case 11:
            return ended("failure")
        case other:
            raise UserError(f"the result_action_type {other!r} is unknown")


def _pixels(record: Mapping[str, Any], key: str, size: Size) -> Point:
    y, x = point_of(record.get(key), key)
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise UserError(f"{key} is {record.get(key)!r}; expected fractions of the screen as [y, x]")
    return x * size[0], y * size[1]


def _around(point: Point, positions: Any, size: Size) -> tuple[Box, ...]:
    """Return the boxes that have a point inside when they are enlarged. They are given as y, x, height and width, in
    pixels, as in AitZ, or as fractions, as in AitW."""
    boxes = []
    for given in list_of(positions, "ui_positions"):
        y, x, height, width = numbers(given, 4, "an entry of ui_positions", "[y, x, height, width]")
        boxes.append((x, y, width, height))
    if all(abs(value) <= 1 for box in boxes for value in box):
        boxes = [(x * size[0], y * size[1], width * size[0], height * size[1]) for x, y, width, height in boxes]
    found = []
    for x, y, width, height in boxes:
        middle = x + width / 2, y + height / 2
        if all(
            abs(value - centre) <= ENLARGED * side / 2
            for value, centre, side in zip(point, middle, (width, height), strict=True)
        ):
            found.append((round(x, 2), round(y, 2), round(x + width, 2), round(y + height, 2)))
    return tuple(dict.fromkeys(found))


AITW = Converter("aitw", "Android in the Wild or in the Zoo as JSON lists of steps", matches, rows, USED)
