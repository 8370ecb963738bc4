"""The text with which the published chat template describes the functions (tools) that an assistant may call."""

import json
from collections.abc import Sequence
from typing import Any

BEFORE = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>"""

AFTER = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


def tools_in_words(tools: Sequence[dict[str, Any]]) -> str:
    """Return the description of the tools, which is the end of the system turn.

    The newer chat templates write it themselves. Models with the older templates know it from text.
    """
    return BEFORE + "".join(f"\n{json.dumps(tool, ensure_ascii=False)}" for tool in tools) + AFTER
