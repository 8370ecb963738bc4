"""The published tools of agents on a phone and on a computer, as the models of each generation were given them.

The texts are those of Qwen's cookbooks (mobile_agent and agent_function_call, Apache-2.0) and, for Qwen2.5-VL's
computer_use, those with which ScreenSpot-Pro evaluates it: a model must read the same ones in training and in use.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from qwenvl_train.families.family import Family

AgentTool = Literal["mobile_use", "computer_use"]
AGENT_TOOLS: tuple[AgentTool, ...] = get_args(AgentTool)


@dataclass(frozen=True)
class Screen:
    """The size that a tool states for the screen, in whose units its coordinates are."""

    width: int
    height: int


def screen_of(tool: AgentTool, family: Family, resized: tuple[int, int]) -> Screen:
    """Return the size that a tool of the family states. `resized` is height and width of the resized screenshot."""
    if family.coordinates == "resized":
        return Screen(resized[1], resized[0])
    side = 999 if tool == "mobile_use" else 1000
    return Screen(side, side)


def schema_of(tool: AgentTool, family: Family, screen: Screen) -> dict[str, Any]:
    """Return the JSON schema of a tool."""
    older = family.coordinates == "resized"
    of_mobile = tool == "mobile_use"
    function: dict[str, Any] = {"name_for_human": tool} if older else {}
    function |= {
        "name": tool,
        "description": _description(tool, older).format(width=screen.width, height=screen.height),
        "parameters": _mobile_parameters(older) if of_mobile else _computer_parameters(older),
    }
    if older:
        function["args_format"] = "Format the arguments as a JSON object."
    return {"type": "function", "function": function}


def _description(tool: AgentTool, older: bool) -> str:
    if tool == "mobile_use":
        return _MOBILE
    return f"{_COMPUTER} unless asked." if older else f"{_COMPUTER}."


def actions_of(tool: AgentTool, family: Family) -> tuple[str, ...]:
    """Return the names of the actions that a tool of the family has."""
    return tuple(_actions(tool, family.coordinates == "resized"))


def _actions(tool: AgentTool, older: bool) -> dict[str, str]:
    """Return the description of each action. `older` is the form of Qwen2.5-VL."""
    actions = _MOBILE_ACTIONS if tool == "mobile_use" else _COMPUTER_ACTIONS
    without = _NOT_IN_OLDER if older else _NOT_IN_NEWER
    # The older tool does not say where the mouse is clicked.
    return {
        name: words.replace(f" {_AT_POINT}", "") if older else words
        for name, words in actions.items()
        if name not in without[tool]
    }


def _described(actions: dict[str, str]) -> dict[str, Any]:
    lines = [f"* `{name}`: {words}" for name, words in actions.items()]
    words = "\n".join(("The action to perform. The available actions are:", *lines))
    return {"description": words, "enum": list(actions), "type": "string"}


def _mobile_parameters(older: bool) -> dict[str, Any]:
    return {
        "properties": {
            "action": _described(_actions("mobile_use", older)),
            "coordinate": {
                "description": f"{_POINT} Required only by `action=click`, `action=long_press`, and `action=swipe`.",
                "type": "array",
            },
            "coordinate2": {"description": f"{_POINT} Required only by `action=swipe`.", "type": "array"},
            "text": {
                "description": "Required only by `action=key`, `action=type`, and `action=open`."
                if older
                else "Required only by `action=type` and `action=answer`.",
                "type": "string",
            },
            "time": {
                "description": "The seconds to wait. Required only by `action=long_press` and `action=wait`.",
                "type": "number",
            },
            "button": {
                "description": "Back means returning to the previous interface, Home means returning to the desktop, "
                "Menu means opening the application background menu, and Enter means pressing the enter. Required only "
                "by `action=system_button`",
                "enum": ["Back", "Home", "Menu", "Enter"],
                "type": "string",
            },
            "status": _STATUS,
        },
        "required": ["action"],
        "type": "object",
    }


def _computer_parameters(older: bool) -> dict[str, Any]:
    pixels = "`action=scroll`" if older else "`action=scroll` and `action=hscroll`"
    return {
        "properties": {
            "action": _described(_actions("computer_use", older)),
            "keys": {"description": "Required only by `action=key`.", "type": "array"},
            "text": {
                "description": f"Required only by `action=type`{'' if older else ' and `action=answer`'}.",
                "type": "string",
            },
            "coordinate": {
                "description": f"{_POINT} Required only by `action=mouse_move` and `action=left_click_drag`."
                if older
                else _POINT,
                "type": "array",
            },
            "pixels": {
                "description": "The amount of scrolling to perform. Positive values scroll up, negative values scroll "
                f"down. Required only by {pixels}.",
                "type": "number",
            },
            "time": {"description": "The seconds to wait. Required only by `action=wait`.", "type": "number"},
            "status": _STATUS,
        },
        "required": ["action"],
        "type": "object",
    }


_MOBILE = """\
Use a touchscreen to interact with a mobile device, and take screenshots.
* This is an interface to a mobile device with touchscreen. You can perform actions like clicking, typing, swiping, etc.
* Some applications may take time to start or process actions, so you may need to wait and take successive screenshots \
to see the results of your actions.
* The screen's resolution is {width}x{height}.
* Make sure to click any buttons, links, icons, etc with the cursor tip in the center of the element. Don't click \
boxes on their edges unless asked."""
_COMPUTER = """\
Use a mouse and keyboard to interact with a computer, and take screenshots.
* This is an interface to a desktop GUI. You do not have access to a terminal or applications menu. You must click on \
desktop icons to start applications.
* Some applications may take time to start or process actions, so you may need to wait and take successive screenshots \
to see the results of your actions. E.g. if you click on Firefox and a window doesn't open, try wait and taking \
another screenshot.
* The screen's resolution is {width}x{height}.
* Whenever you intend to move the cursor to click on an element like an icon, you should consult a screenshot to \
determine the coordinates of the element before moving the cursor.
* If you tried clicking on a program or link but it failed to load, even after waiting, try adjusting your cursor \
position so that the tip of the cursor visually falls on the element that you want to click.
* Make sure to click any buttons, links, icons, etc with the cursor tip in the center of the element. Don't click \
boxes on their edges"""
_POINT = "(x, y): The x (pixels from the left edge) and y (pixels from the top edge) coordinates to move the mouse to."
_STATUS = {
    "description": "The status of the task. Required only by `action=terminate`.",
    "type": "string",
    "enum": ["success", "failure"],
}
_AT_POINT = "at a specified (x, y) pixel coordinate on the screen"
_MOBILE_ACTIONS = {
    "key": "Perform a key event on the mobile device.\n    - This supports adb's `keyevent` syntax.\n    - Examples: "
    '"volume_up", "volume_down", "power", "camera", "clear".',
    "click": "Click the point on the screen with coordinate (x, y).",
    "long_press": "Press the point on the screen with coordinate (x, y) for specified seconds.",
    "swipe": "Swipe from the starting point with coordinate (x, y) to the end point with coordinates2 (x2, y2).",
    "type": "Input the specified text into the activated input box.",
    "answer": "Output the answer.",
    "system_button": "Press the system button.",
    "open": "Open an app on the device.",
    "wait": "Wait specified seconds for the change to happen.",
    "terminate": "Terminate the current task and report its completion status.",
}
_COMPUTER_ACTIONS = {
    "key": "Performs key down presses on the arguments passed in order, then performs key releases in reverse order.",
    "type": "Type a string of text on the keyboard.",
    "mouse_move": "Move the cursor to a specified (x, y) pixel coordinate on the screen.",
    "left_click": f"Click the left mouse button {_AT_POINT}.",
    "left_click_drag": "Click and drag the cursor to a specified (x, y) pixel coordinate on the screen.",
    "right_click": f"Click the right mouse button {_AT_POINT}.",
    "middle_click": f"Click the middle mouse button {_AT_POINT}.",
    "double_click": f"Double-click the left mouse button {_AT_POINT}.",
    "triple_click": f"Triple-click the left mouse button {_AT_POINT} (simulated as double-click since it's the closest "
    "action).",
    "scroll": "Performs a scroll of the mouse scroll wheel.",
    "hscroll": "Performs a horizontal scroll (mapped to regular scroll).",
    "wait": "Wait specified seconds for the change to happen.",
    "terminate": "Terminate the current task and report its completion status.",
    "answer": "Answer a question.",
}
_NOT_IN_OLDER = {"mobile_use": ("answer",), "computer_use": ("triple_click", "hscroll", "answer")}
_NOT_IN_NEWER: dict[str, tuple[str, ...]] = {"mobile_use": ("key", "open"), "computer_use": ()}
ACTIONS = tuple(dict.fromkeys([*_MOBILE_ACTIONS, *_COMPUTER_ACTIONS]))
"""The names of all actions of both tools."""
