"""The chat formats of the published checkpoints, as frozen records of what their chat templates differ in.

A family has one or several. Which one a checkpoint has is found out from its own chat template.
"""

from dataclasses import dataclass, replace
from typing import Literal

from qwenvl_train.families.tools import JSON_TOOLS, XML_TOOLS, ToolFormat


@dataclass(frozen=True)
class Thinking:
    """How a chat template writes the thoughts before an answer."""

    default: bool
    """Whether the model is asked to think unless the template is told otherwise."""
    optional: bool
    """Whether `enable_thinking` of the template decides if the model is asked to think."""
    every_answer: bool
    """Whether every answer after the last question has thoughts, which are empty if the row has none. Otherwise only
    the last answer of a conversation gets empty ones."""
    earlier: Literal["dropped", "optional", "kept"]
    """Whether the answers before the last question keep their thoughts: never, if `preserve_thinking` of the template
    says so, or by default."""
    effort: str = ""
    """The sentence at the beginning of the system turn of a model that is asked to think."""


@dataclass(frozen=True)
class ChatFormat:
    name: str
    tools: ToolFormat = JSON_TOOLS
    trimmed: bool = False
    """Whether white space at both ends of a turn's content is left out."""
    thinking: Thinking | None = None
    """None if answers have no thoughts."""


PLAIN = ChatFormat("without thoughts")

QWEN3_VL_THINKING = ChatFormat(
    "Qwen3-VL Thinking",
    thinking=Thinking(default=True, optional=False, every_answer=False, earlier="dropped"),
)

QWEN3_5 = ChatFormat(
    "Qwen3.5 without thinking by default",
    tools=replace(XML_TOOLS, scalars="python"),
    trimmed=True,
    thinking=Thinking(default=False, optional=True, every_answer=True, earlier="dropped"),
)
"""The format of checkpoints up to 2B."""

QWEN3_5_THINKING = replace(
    QWEN3_5,
    name="Qwen3.5 with thinking by default",
    thinking=Thinking(default=True, optional=True, every_answer=True, earlier="dropped"),
)
"""The format of checkpoints from 4B."""

QWEN3_6 = replace(
    QWEN3_5_THINKING,
    name="Qwen3.6",
    tools=XML_TOOLS,
    thinking=Thinking(default=True, optional=True, every_answer=True, earlier="optional"),
)

QWEN3_8 = replace(
    QWEN3_6,
    name="Qwen3.8",
    thinking=Thinking(
        default=True,
        optional=True,
        every_answer=True,
        earlier="kept",
        effort=(
            "Reasoning effort is set to xhigh. Please think carefully through the task, validate key assumptions, "
            "consider plausible alternatives, and prioritize correctness, consistency, and clarity in the final answer."
        ),
    ),
)
"""The format with the template's default of `reasoning_effort`."""
