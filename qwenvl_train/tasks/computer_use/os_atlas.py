"""OS-Atlas' rows of actions, as in its evaluation: LLaVA's form with the task and the history in the question, and an
answer such as CLICK <point>[[x,y]]</point>. Coordinates are from 0 to 1000."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.agents.actions import Arguments, Point, Size, at, ended, wait, written
from qwenvl_train.tasks.agents.files import json_files, records_in, screenshot
from qwenvl_train.tasks.agents.steps import USED, Step, asked, row_of_step
from qwenvl_train.tasks.boxes import size_of
from qwenvl_train.tasks.computer_use.forms import refuse_click
from qwenvl_train.tasks.converter import Converter, Raw, Records, RowOptions, rows_or_refused
from qwenvl_train.tasks.files import first_record

SCROLLED = 5
"""How far a scroll goes, whose direction alone is known."""
_QUESTION = re.compile(r"\nTask:\s*(?P<task>.+?)\s*\nHistory:\s*(?P<history>.*)\Z", re.DOTALL)
_DONE = re.compile(r"^Step \d+:\s*(.+)$", re.MULTILINE)
_ANSWER = re.compile(r"(?:thoughts?:\s*(?P<said>.*?)\s*)?actions?:\s*(?P<actions>.+)\Z", re.DOTALL | re.IGNORECASE)
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_ACTION = re.compile(rf"([A-Z_]+)\s*(?:<point>\[\[{_NUMBER},{_NUMBER}\]\]</point>|\[(.*)\])?")
_AT_POINT = {
    "CLICK": "left_click",
    "DOUBLECLICK": "double_click",
    "RIGHTCLICK": "right_click",
    "MOVETO": "mouse_move",
}
_SCROLLS = {
    "UP": ("scroll", SCROLLED),
    "DOWN": ("scroll", -SCROLLED),
    "LEFT": ("hscroll", -SCROLLED),
    "RIGHT": ("hscroll", SCROLLED),
}
_KEYS = {"PGDN": "pagedown", "PGUP": "pageup"}
_OF_PHONES = ("PRESS_BACK", "PRESS_HOME", "PRESS_RECENT")


def matches(source: Path) -> bool:
    first = next(iter(json_files(source)), None)
    match first_record(first) if first else None:
        case {"image": str(), "conversations": [{"value": str(question)}, {"value": str(answer)}, *_]}:
            return _QUESTION.search(question) is not None and _ANSWER.search(answer) is not None
    return False


def rows(source: Path, options: RowOptions) -> Records:
    refuse_click(options, "OS-Atlas")
    for where, record in records_in(source):
        yield from rows_or_refused(where, _rows(record, source, where, options))


def _rows(record: Any, source: Path, where: str, options: RowOptions) -> Iterator[Raw]:
    match record:
        case {"image": str(), "conversations": [{"value": str(question)}, {"value": str(answer)}, *_]}:
            image = screenshot(record, "image", source, options)
        case _:
            raise UserError("it must have an image, and conversations with a question and an answer")
    asked_for, answered = _QUESTION.search(question), _ANSWER.search(answer)
    if asked_for is None:
        raise UserError("its question has no 'Task:' with 'History:' after it")
    if answered is None:
        raise UserError("its answer has no 'actions:'")
    size = size_of(image)
    calls = tuple(_call(line.strip(), size) for line in answered["actions"].splitlines() if line.strip())
    if options.without.isdisjoint(call["action"] for call in calls):
        key = str(record.get("id", where.rpartition("/")[2]))
        step = Step(image, calls, answered["said"] or "")
        text = asked(key, asked_for["task"], _DONE.findall(asked_for["history"]), options)
        yield row_of_step(key, step, "computer_use", options, text)


def _call(line: str, size: Size) -> Arguments:
    found = _ACTION.fullmatch(line)
    match found.groups() if found else None:
        case (str(name), str(x), str(y), None) if name in _AT_POINT:
            return at(_AT_POINT[name], _pixels(float(x), float(y), size), size)
        case ("TYPE", None, None, str(text)) if text:
            return written(text)
        case ("SCROLL", None, None, str(direction)) if direction.upper() in _SCROLLS:
            action, pixels = _SCROLLS[direction.upper()]
            return {"action": action, "pixels": pixels}
        case ("HOTKEY", None, None, str(keys)) if keys:
            return {"action": "key", "keys": [_key(key) for key in re.split(r"[_+]", keys)]}
        case ("ENTER", None, None, None):
            return {"action": "key", "keys": ["enter"]}
        case ("WAIT", None, None, None):
            return wait()
        case ("COMPLETE", None, None, None):
            return ended("success")
        case (str(name), None, None, None) if name.startswith("PRESS_") and name not in _OF_PHONES:
            return {"action": "key", "keys": [_key(name.removeprefix("PRESS_"))]}
    raise UserError(f"the action {line!r} is none of a computer")


def _pixels(x: float, y: float, size: Size) -> Point:
    return x * size[0] / 1000, y * size[1] / 1000


def _key(name: str) -> str:
    return _KEYS.get(name.strip().upper(), name.strip().lower())


OS_ATLAS = Converter("os_atlas", "OS-Atlas' rows of actions in LLaVA's form", matches, rows, USED)
