"""GUI-Odyssey's annotations: an episode in each .json file. Coordinates are from 0 to 1000."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.data.sample import Box
from qwenvl_train.errors import UserError
from qwenvl_train.tasks.agents.actions import Arguments, Point, Size, at, button, ended, long_press, swipe, written
from qwenvl_train.tasks.agents.files import has_keys, list_of, optional_text, point_of, records_in, screenshot, text_of
from qwenvl_train.tasks.agents.steps import USED, Episode, Step, rows_of_episodes, steps_of
from qwenvl_train.tasks.boxes import inside, size_of
from qwenvl_train.tasks.converter import Converter, Records, RowOptions
from qwenvl_train.tasks.numbers import numbers

_FULL = 1000
_KEYS: dict[str, Arguments] = {
    "KEY_HOME": button("Home"),
    "KEY_BACK": button("Back"),
    "KEY_APPSELECT": button("Menu"),
}


def matches(source: Path) -> bool:
    return has_keys(source, "episode_id", "task_info", "steps")


def rows(source: Path, options: RowOptions) -> Records:
    for where, record in records_in(source):
        yield from rows_of_episodes(where, _episodes(record, source, options), "mobile_use", options)


def _episodes(record: Any, source: Path, options: RowOptions) -> Iterator[Episode]:
    match record:
        case {"episode_id": str(id), "task_info": dict(task), "steps": list(given)}:
            goal = text_of(task, "instruction", "task")
        case _:
            raise UserError("it must have episode_id, task_info and steps")
    yield Episode(id, goal, steps_of(given, lambda step: _step(step, source, options)))


def _step(step: Any, source: Path, options: RowOptions) -> Step:
    if not isinstance(step, dict):
        raise UserError("it is no object")
    image = screenshot(step, "screenshot", source, options)
    size = size_of(image)
    call = _call(step, size)
    targets: tuple[Box, ...] = ()
    if step.get("sam2_bbox") and "coordinate" in call:
        targets = (_box(step["sam2_bbox"], size),)
    return Step(image, (call,), optional_text(step, "low_level_instruction"), optional_text(step, "intention"), targets)


def _call(step: Mapping[str, Any], size: Size) -> Arguments:
    info = step.get("info")
    match step.get("action"):
        case "CLICK" | "LONG_PRESS" as kind:
            if isinstance(info, str) and info in _KEYS:
                return _KEYS[info]
            (point,) = _points(info, 1, size)
            return at("click", point, size) if kind == "CLICK" else long_press(point, size)
        case "SCROLL":
            start, end = _points(info, 2, size)
            return swipe(start, end, size)
        case "TEXT" | "TYPE":
            return written(text_of(step, "info"))
        case "COMPLETE":
            return ended("success")
        case "INCOMPLETE" | "IMPOSSIBLE":
            return ended("failure")
        case "HOME" | "BACK" as kind:
            return _KEYS[f"KEY_{kind}"]
        case other:
            raise UserError(f"the action {other!r} is unknown")


def _points(info: Any, count: int, size: Size) -> list[Point]:
    points = [point_of(one, "a point of info") for one in list_of(info, "info")]
    if len(points) != count:
        raise UserError(f"info is {info!r}; expected {count} points")
    return [(x * size[0] / _FULL, y * size[1] / _FULL) for x, y in points]


def _box(value: Any, size: Size) -> Box:
    found = numbers(value, 4, "sam2_bbox")
    return inside([one * side / _FULL for one, side in zip(found, (*size, *size), strict=True)], size, "sam2_bbox")


ODYSSEY = Converter("gui_odyssey", "GUI-Odyssey's annotations, an episode in each .json file", matches, rows, USED)
