"""The actions that rows call and that the published tools of some generations do not have. A model that is trained on
such a row learns an action that its own tool does not list."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qwenvl_train.data.sample import PublishedTool, Sample, ToolCall
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.agent_tools import AgentTool, actions_of
from qwenvl_train.reporting.wording import many

Calls = Counter[tuple[AgentTool, str]]
"""The number of rows that call an action of a published tool."""


@dataclass(frozen=True)
class Unlisted:
    tool: AgentTool
    action: str
    rows: int
    """Number of rows that call the action."""
    generations: tuple[str, ...]
    """The generations whose tool does not list it."""

    def in_words(self, without: Sequence[str] | None) -> str:
        """Return a line about the action. `without` are the actions of convert.without, or None if this setting has no
        effect."""
        remedy = "" if without is None else f"convert.without=[{','.join([*without, self.action])}]"
        rest = f"; '{remedy}' leaves such steps out" if remedy else ""
        return (
            f"unlisted  {self.action} in {many(self.rows, 'row')}: not in {self.tool} of "
            f"{', '.join(self.generations)}{rest}"
        )


def calls_of(sample: Sample) -> set[tuple[AgentTool, str]]:
    """Return the actions of published tools that the answers of a sample call."""
    found: set[tuple[AgentTool, str]] = set()
    for tool in sample.tools:
        if isinstance(tool, PublishedTool):
            calls = [call for turn in sample.turns for call in turn.calls if call.name == tool.name]
            found |= {(tool.name, action) for call in calls if (action := _action_of(call)) is not None}
    return found


def _action_of(call: ToolCall) -> str | None:
    match json.loads(call.arguments):
        case {"action": str(action)}:
            return action
    return None


def unlisted(calls: Calls) -> Iterator[Unlisted]:
    """Yield the actions that some generations do not list, those of most rows first. A mixture of experts has the tools
    of its generation."""
    dense = [family for family in FAMILIES.values() if not family.expert_weights]
    for (tool, action), rows in calls.most_common():
        lacking = tuple(family.name for family in dense if action not in actions_of(tool, family))
        if lacking:
            yield Unlisted(tool, action, rows, lacking)
