"""How chat templates describe the functions (tools) that an assistant may call, and how they write a call."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qwenvl_train.errors import UserError


@dataclass(frozen=True)
class ToolFormat:
    before: str
    """The text before the signatures of the tools."""
    after: str
    """The text after the signatures."""
    place: Literal["before", "after"]
    """Whether the description stands before or after the other text of the system turn."""
    calls: Literal["json", "xml"]
    scalars: Literal["json", "python"] = "json"
    """How XML calls write numbers, truth values and null: as JSON, or as Python's str does (True, None)."""

    def described(self, tools: Sequence[dict[str, Any]]) -> str:
        """Return the description of the tools for the system turn."""
        return self.before + "".join(f"\n{_json(tool)}" for tool in tools) + self.after

    def call(self, name: str, arguments: str, where: str) -> str:
        """Return the text of a call. `arguments` is JSON.

        Raises:
            UserError: If the call is written as XML and the arguments are no JSON object.
        """
        if self.calls == "json":
            return f'<tool_call>\n{{"name": {_json(name)}, "arguments": {arguments}}}\n</tool_call>'
        values = json.loads(arguments)
        if not isinstance(values, dict):
            raise UserError(
                f"{where}: the arguments of the call of {name} are {arguments[:80]}, but this model writes arguments "
                "by their names; give a JSON object."
            )
        written = "".join(f"<parameter={key}>\n{self._value(value)}\n</parameter>\n" for key, value in values.items())
        return f"<tool_call>\n<function={name}>\n{written}</function>\n</tool_call>"

    def _value(self, value: object) -> str:
        is_scalar = not isinstance(value, dict | list)
        if isinstance(value, str) or (is_scalar and self.scalars == "python"):
            return str(value)
        return _json(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


JSON_TOOLS = ToolFormat(
    before="""\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>""",
    after="""
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>""",
    place="after",
    calls="json",
)
"""The format up to Qwen3-VL. The older chat templates do not write it, and their models know it from text."""

XML_TOOLS = ToolFormat(
    before="""\
# Tools

You have access to the following functions:

<tools>""",
    after="""
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within \
<tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell \
the user about function calls
</IMPORTANT>""",
    place="before",
    calls="xml",
)
"""The format since Qwen3.6. That of Qwen3.5 differs in `scalars`."""
