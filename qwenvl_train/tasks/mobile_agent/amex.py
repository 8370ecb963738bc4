"""AMEX' instruction_anno: an episode in each .json file. Points are (x, y) in pixels of the device."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.agents.actions import Arguments, Point, Size, at, button, ended, swipe, wait, written
from qwenvl_train.tasks.agents.files import has_keys, optional_text, point_of, records_in, screenshot, text_of
from qwenvl_train.tasks.agents.steps import USED, Episode, Step, rows_of_episodes, steps_of
from qwenvl_train.tasks.boxes import size_of
from qwenvl_train.tasks.converter import Converter, Records, RowOptions


def matches(source: Path) -> bool:
    return has_keys(source, "episode_id", "instruction", "steps")


def rows(source: Path, options: RowOptions) -> Records:
    for where, record in records_in(source):
        yield from rows_of_episodes(where, _episodes(record, source, options), "mobile_use", options)


def _episodes(record: Any, source: Path, options: RowOptions) -> Iterator[Episode]:
    match record:
        case {"episode_id": str(id), "steps": list(given)}:
            goal = text_of(record, "instruction")
        case _:
            raise UserError("it must have episode_id, instruction and steps")
    yield Episode(id, goal, steps_of(given, lambda step: _step(step, source, options)))


def _step(step: Any, source: Path, options: RowOptions) -> Step:
    if not isinstance(step, dict):
        raise UserError("it is no object")
    image = screenshot(step, "image_path", source, options)
    return Step(image, (_call(step, size_of(image)),), optional_text(step, "action_description"))


def _call(step: Mapping[str, Any], size: Size) -> Arguments:
    match str(step.get("action")).upper():
        case "TAP" | "CLICK":
            return at("click", _pixels(step, "touch_coord", size), size)
        case "SWIPE":
            return swipe(_pixels(step, "touch_coord", size), _pixels(step, "lift_coord", size), size)
        case "TYPE":
            return written(text_of(step, "type_text"))
        case "PRESS_BACK":
            return button("Back")
        case "PRESS_HOME":
            return button("Home")
        case "PRESS_ENTER":
            return button("Enter")
        case "WAIT":
            return wait()
        case "TASK_COMPLETE":
            return ended("success")
        case "TASK_IMPOSSIBLE":
            return ended("failure")
    raise UserError(f"the action {step.get('action')!r} is unknown")


def _pixels(step: Mapping[str, Any], key: str, size: Size) -> Point:
    """Return a point in pixels of the screenshot, whose size may be another one than that of the device."""
    x, y = point_of(step.get(key), key)
    if step.get("device_dim") is None:
        return x, y
    width, height = point_of(step["device_dim"], "device_dim")
    if min(width, height) <= 0:
        raise UserError(f"device_dim is {step['device_dim']!r}; expected width and height")
    return x * size[0] / width, y * size[1] / height


AMEX = Converter("amex", "AMEX' instruction_anno, an episode in each .json file", matches, rows, USED)
