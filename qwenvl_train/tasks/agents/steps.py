"""Episodes of agents, and the row of each step: the screenshot, the goal with what was done before, and the call."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenvl_train.data.sample import Box
from qwenvl_train.errors import UserError
from qwenvl_train.families.agent_tools import AgentTool
from qwenvl_train.tasks.agents.actions import Arguments, described
from qwenvl_train.tasks.converter import Empty, Raw, Records, Refused, RowOptions, filled

FORMS = ("call", "action_call", "thought_action_call")
"""Only the call; before it what is done, in words; or the thought before it, too."""
USED = ("system", "without")
"""The settings that converters of episodes use."""
_IMAGE = "<image>"
_NOTHING = {"type": "text", "text": ""}


@dataclass(frozen=True)
class Step:
    image: Path
    """The screenshot before the step."""
    calls: tuple[Arguments, ...]
    said: str = ""
    """What is done, in words of the data set."""
    thought: str = ""
    targets: tuple[Box, ...] = ()
    """The boxes of the element that the action is done to, in pixels of the screenshot."""
    is_wanted: bool = True
    """Whether the step gives a row. If not, it is only in the history of later steps."""


@dataclass(frozen=True)
class Episode:
    id: str
    goal: str
    steps: Sequence[Step]


def steps_of(records: Iterable[Any], read: Callable[[Any], Step]) -> list[Step]:
    """Read the steps of an episode.

    Raises:
        UserError: If one cannot be read; it tells the number of the step, counted from 1.
    """
    steps = []
    for number, record in enumerate(records, start=1):
        try:
            steps.append(read(record))
        except UserError as error:
            raise UserError(f"step {number}: {error}") from None
    return steps


def rows_of_episodes(where: str, episodes: Iterator[Episode], tool: AgentTool, options: RowOptions) -> Records:
    """Yield the rows of the episodes of a record, or what is wrong with it. An episode with a broken step gives no row,
    since the history of its later steps would lack that one."""
    try:
        yield from [row for episode in episodes for row in rows_of_episode(episode, tool, options)]
    except UserError as error:
        yield Refused(where, str(error).removesuffix("."))


def rows_of_episode(episode: Episode, tool: AgentTool, options: RowOptions) -> Iterator[Raw | Empty]:
    """Yield the row of each step that is wanted and has no action of `options.without`, and why the others have
    none."""
    done: list[str] = []
    rows: list[Raw] = []
    if not episode.steps:
        raise UserError(f"the episode {episode.id} has no step")
    for number, step in enumerate(episode.steps, start=1):
        left_out = options.without.intersection(call["action"] for call in step.calls)
        if not step.is_wanted:
            yield Empty(f"{episode.id}, step {number}", "the data mark it as wrong or redundant")
        elif left_out:
            yield Empty(f"{episode.id}, step {number}", f"convert.without has {', '.join(sorted(left_out))}")
        else:
            rows.append(_row(episode, number, step, done, tool, options))
        done.append(step.said or ", ".join(map(described, step.calls)))
    for row in rows:
        yield row | {"episode": {"id": episode.id, "steps": len(rows)}}


def asked(key: str, goal: str, done: Sequence[str], options: RowOptions) -> tuple[str, str]:
    """Return the question of a step, before which some were done: its texts before and after the screenshot. The
    screenshot is where the prompt has <image>, or else at the beginning."""
    # Qwen's cookbook mobile_agent takes these two out, too.
    words = [text.replace("\n", "").replace('"', "") for text in done]
    listed = [f"Step {number}: {text}" for number, text in enumerate(words, start=1)]
    history, lines = "".join(f"{one}; " for one in listed), "\n".join(listed) or "None"
    names = {"query": goal, "history": history, "history_lines": lines}
    before, _, after = options.prompts.template(key).rpartition(_IMAGE)
    return filled(before, names), filled(after, names)


def row_of_step(key: str, step: Step, tool: AgentTool, options: RowOptions, question: tuple[str, str]) -> Raw:
    """Return the row of a step. `question` is what `asked` returns."""
    before, after = question
    parts = [{"type": "text", "text": before}, {"type": "image"}, {"type": "text", "text": after}]
    content = [part for part in parts if part != _NOTHING]
    calls = [{"function": {"name": tool, "arguments": call}} for call in step.calls]
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": _words(step, options.form), "tool_calls": calls},
    ]
    row: Raw = {"id": key, "messages": turns, "images": [str(step.image)], "tools": [tool]}
    columns = {"system": options.system, "targets": [list(box) for box in step.targets]}
    return row | {name: value for name, value in columns.items() if value}


def _row(episode: Episode, number: int, step: Step, done: Sequence[str], tool: AgentTool, options: RowOptions) -> Raw:
    key = f"{episode.id}/{number}"
    question = asked(key, episode.goal, done, options)
    try:
        return row_of_step(key, step, tool, options, question)
    except UserError as error:
        raise UserError(f"step {number}: {error}") from None


def _words(step: Step, form: str) -> str:
    """Return the text of an answer before its call."""
    if form not in ("action_call", "thought_action_call"):
        return ""
    if not step.said:
        raise UserError("it has no words for what is done; set convert.form=call")
    action = f"Action: {step.said}"
    if form == "action_call":
        return action
    if not step.thought:
        raise UserError("it has no thought; set convert.form=action_call or call")
    return f"Thought: {step.thought}\n{action}"
