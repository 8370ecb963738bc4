"""AndroidControl as JSON: an episode in each record, with its goal, screenshots, actions and accessibility trees, as
AgentCPM-GUI writes the published TFRecords."""

import json
import re
from collections.abc import Iterator, Mapping
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
    swipe_towards,
    wait,
    written,
)  # fmt: skip
from qwenvl_train.tasks.agents.files import has_keys, list_of, point_of, records_in, screenshot, text_of
from qwenvl_train.tasks.agents.steps import USED, Episode, Step, rows_of_episodes, steps_of
from qwenvl_train.tasks.boxes import size_of
from qwenvl_train.tasks.converter import Converter, Records, RowOptions
from qwenvl_train.tasks.numbers import numbers, shown

NEAREST = 5
"""The number of elements nearest to a point that are its targets, as Qwen's evaluator has it for AndroidControl."""
SAME_SHAPE = 0.05
"""How far the two factors from the size that a record tells to that of the screenshot's file may be apart."""
_SCREENSHOTS = ("screenshot_path", "screenshot_paths", "screenshots")
_TREES = ("accessibility_tree", "accessibility_trees", "node_info")
_OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}
_BOUNDS = re.compile(r"bounds_in_screen\s*\{([^}]*)\}")
_SIDE = re.compile(r"(left|top|right|bottom):\s*(-?\d+)")


def matches(source: Path) -> bool:
    return has_keys(source, "goal", "actions", "step_instructions")


def rows(source: Path, options: RowOptions) -> Records:
    for where, record in records_in(source):
        yield from rows_of_episodes(where, _episodes(record, source, options), "mobile_use", options)


def _episodes(record: Any, source: Path, options: RowOptions) -> Iterator[Episode]:
    if not isinstance(record, dict):
        raise UserError("it is no object")
    actions = [_action(one) for one in list_of(record.get("actions"), "actions")]
    key = next((key for key in _SCREENSHOTS if key in record), _SCREENSHOTS[0])
    images = [screenshot({key: one}, key, source, options) for one in list_of(record.get(key), key)]
    said = list_of(record.get("step_instructions"), "step_instructions")
    if len(images) not in (len(actions), len(actions) + 1) or len(said) != len(actions):
        raise UserError(
            f"it has {len(actions)} actions, {len(said)} step_instructions and {len(images)} screenshots; expected as "
            "many instructions, and as many screenshots or one more"
        )
    steps = steps_of(
        range(len(actions)),
        lambda number: _step(record, number, actions[number], _said(said[number]), images[number]),
    )
    if len(images) > len(actions):  # the last screenshot shows that the goal is reached
        steps.append(Step(images[-1], (ended("success"),), "Finish the task"))
    yield Episode(_id_of(record), text_of(record, "goal"), steps)


def _said(given: Any) -> str:
    """Return the words of a step. null stands for none."""
    if given is not None and not isinstance(given, str):
        raise UserError(f"its instruction is {shown(given)}, which is no text")
    return (given or "").strip()


def _id_of(record: Mapping[str, Any]) -> str:
    match record.get("episode_id"):
        case str() | int() as id:
            return str(id)
        case [str() | int() as id]:
            return str(id)
    raise UserError("it has no episode_id")


def _action(given: Any) -> Mapping[str, Any]:
    try:
        action = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        action = None
    if not isinstance(action, dict):
        raise UserError(f"the action {shown(given)} is no JSON object")
    return action


def _step(record: Mapping[str, Any], number: int, action: Mapping[str, Any], said: str, image: Path) -> Step:
    size = size_of(image)
    scale = _scale(record, number, size)
    point = None
    if action.get("x") is not None:
        x, y = point_of([action.get("x"), action.get("y")], "its point")
        point = x * scale[0], y * scale[1]
    call = _call(action, point, size)
    targets = _nearest(record, number, point, scale) if point and call["action"] in ("click", "long_press") else ()
    return Step(image, (call,), said, targets=targets)


def _call(action: Mapping[str, Any], point: Point | None, size: Size) -> Arguments:
    match action.get("action_type"):
        case "click" | "long_press" as kind:
            if point is None:
                raise UserError(f"the action {kind} has no x and y")
            return at("click", point, size) if kind == "click" else long_press(point, size)
        case "scroll":
            # The content moves against the finger.
            return swipe_towards(_OPPOSITE.get(str(action.get("direction")), str(action.get("direction"))), size, point)
        case "input_text":
            return written(text_of(action, "text"))
        case "open_app":
            return {"action": "open", "text": text_of(action, "app_name")}
        case "navigate_home":
            return button("Home")
        case "navigate_back":
            return button("Back")
        case "wait":
            return wait()
        case other:
            raise UserError(
                f"the action {other!r} is unknown; known are click, long_press, scroll, input_text, open_app, "
                "navigate_home, navigate_back and wait"
            )


def _scale(record: Mapping[str, Any], number: int, size: Size) -> tuple[float, float]:
    """Return the factors from the size that the record tells to that of the file of the screenshot."""
    told = [record.get(key) for key in ("screenshot_widths", "screenshot_heights")]
    if all(one is None or one == [] for one in told):
        return 1.0, 1.0
    given = [one[number] if isinstance(one, list) and number < len(one) else one for one in told]
    width, height = numbers(given, 2, "the size of its screenshot", "width and height")
    if min(width, height) <= 0:
        raise UserError(f"the size of its screenshot is {given}; expected width and height")
    scale = size[0] / width, size[1] / height
    if abs(scale[0] / scale[1] - 1) > SAME_SHAPE:
        raise UserError(
            f"its screenshot has {size[0]} x {size[1]} pixels, but screenshot_widths and screenshot_heights tell "
            f"{width:g} x {height:g}, which is another shape"
        )
    return scale


def _nearest(record: Mapping[str, Any], number: int, point: Point, scale: tuple[float, float]) -> tuple[Box, ...]:
    """Return the boxes of the elements whose middles are nearest to a point, without those that have no area."""
    key = next((key for key in _TREES if record.get(key) is not None), _TREES[0])
    trees = list_of(record.get(key) or [], key)
    tree = trees[number] if number < len(trees) else None
    boxes = list(_boxes(tree))
    if tree and not boxes:
        raise UserError(
            f"no element in {key} has bounds_in_screen with left, top, right and bottom; without {key}, rows have no "
            "targets"
        )
    scaled = [(x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1]) for x1, y1, x2, y2 in boxes]

    def away(box: Box) -> float:
        return ((box[0] + box[2]) / 2 - point[0]) ** 2 + ((box[1] + box[3]) / 2 - point[1]) ** 2

    nearest = dict.fromkeys(sorted(scaled, key=away)[:NEAREST])
    return tuple(box for box in nearest if box[0] < box[2] and box[1] < box[3])


def _boxes(tree: Any) -> Iterator[Box]:
    """Yield the boxes of all elements in a tree: the text of the published protocol buffer, which leaves out zeros, or
    JSON with the same names."""
    waiting = [("", tree)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict) and key in ("bounds", "bounds_in_screen"):
            yield _box(value)
        elif isinstance(value, dict):
            waiting.extend(reversed(value.items()))
        elif isinstance(value, list):
            waiting.extend(("", one) for one in reversed(value))
        elif isinstance(value, str) and not key:
            for bounds in _BOUNDS.findall(value):
                yield _box({side: float(number) for side, number in _SIDE.findall(bounds)})


def _box(bounds: Mapping[str, Any]) -> Box:
    sides = [bounds.get(side, 0) for side in ("left", "top", "right", "bottom")]
    left, top, right, bottom = numbers(sides, 4, "the bounds of an element")
    return left, top, right, bottom


ANDROID_CONTROL = Converter("android_control", "AndroidControl as JSON, an episode in each record", matches, rows, USED)
