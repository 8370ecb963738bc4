"""AgentNet: an episode in each line, with pyautogui code for each step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.agents.files import has_keys, optional_text, records_in, screenshot, text_of
from qwenvl_train.tasks.agents.steps import USED, Episode, Step, rows_of_episodes, steps_of
from qwenvl_train.tasks.boxes import size_of
from qwenvl_train.tasks.computer_use.forms import refuse_click
from qwenvl_train.tasks.computer_use.pyautogui_code import actions_in
from qwenvl_train.tasks.converter import Converter, Records, RowOptions
from qwenvl_train.tasks.numbers import shown


def matches(source: Path) -> bool:
    return has_keys(source, "task_id", "traj")


def rows(source: Path, options: RowOptions) -> Records:
    refuse_click(options, "AgentNet")
    for where, record in records_in(source):
        yield from rows_of_episodes(where, _episodes(record, source, options), "computer_use", options)


def _episodes(record: Any, source: Path, options: RowOptions) -> Iterator[Episode]:
    match record:
        case {"task_id": str(id), "traj": list(given)}:
            goal = text_of(record, "instruction", "natural_language_task", "actual_task")
        case _:
            raise UserError("it must have task_id and traj")
    yield Episode(id, goal, steps_of(given, lambda step: _step(step, source, options)))


def _step(given: Any, source: Path, options: RowOptions) -> Step:
    match given:
        case {"image": str(), "value": {"code": str(code)}}:
            image, value = screenshot(given, "image", source, options), given["value"]
        case _:
            raise UserError("it must have image, and value with code")
    calls = actions_in(code, size_of(image))
    is_wanted = _flag(value, "last_step_correct", True) and not _flag(value, "last_step_redundant", False)
    words = optional_text(value, "action"), optional_text(value, "thought")
    return Step(image, tuple(calls), *words, is_wanted=is_wanted)


def _flag(value: dict[str, Any], key: str, usual: bool) -> bool:
    """Return a mark of a step, which may be absent."""
    match value.get(key):
        case None:
            return usual
        case bool(found):
            return found
        case other:
            raise UserError(f"{key} is {shown(other)}; expected true or false")


AGENTNET = Converter("agentnet", "AgentNet's .jsonl files, an episode in each line", matches, rows, USED)
