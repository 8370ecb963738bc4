"""The arguments of calls of mobile_use and computer_use, with points in pixels of the screenshot."""

from collections.abc import Mapping
from typing import Any, Literal

from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.places import direction
from qwenvl_train.tasks.boxes import OUTSIDE

Arguments = dict[str, Any]
"""The arguments of a call, `action` among them."""
Size = tuple[int, int]
"""Width and height in pixels."""
Point = tuple[float, float]
SECONDS = 2
"""How long to wait or press, where a data set does not say. All of them do not."""
REACH = 0.3
"""The length of a swipe whose direction alone is known, as a fraction of the screen: AgentCPM-GUI's."""
SHORTEST = 0.04
"""The length up to which a swipe would be a tap, as a fraction of the screen: that of Android in the Wild."""
_TOWARDS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}


def at(action: str, point: Point, size: Size, **more: Any) -> Arguments:
    """Return an action at a point."""
    return {"action": action, "coordinate": region(point, size), **more}


def swipe(start: Point, end: Point, size: Size) -> Arguments:
    return {"action": "swipe", "coordinate": region(start, size), "coordinate2": region(end, size)}


def swipe_towards(direction: str, size: Size, start: Point | None = None) -> Arguments:
    """Return a swipe of the finger in a direction, from a point or from the middle of the screen. Where there is no
    room for one, it begins further away from the edge.

    Raises:
        UserError: If there is no such direction.
    """
    if direction not in _TOWARDS:
        raise UserError(f"the direction {direction!r} is none of {', '.join(_TOWARDS)}")
    width, height = size
    x, y = start or (width / 2, height / 2)
    across, down = _TOWARDS[direction]
    region((x, y), size)
    end = min(max(x + across * REACH * width, 0), width), min(max(y + down * REACH * height, 0), height)
    if abs(end[0] - x) < SHORTEST * width and abs(end[1] - y) < SHORTEST * height:
        x, y = end[0] - across * REACH * width, end[1] - down * REACH * height
    return swipe((x, y), end, size)


def long_press(point: Point, size: Size) -> Arguments:
    return at("long_press", point, size, time=SECONDS)


def button(name: Literal["Back", "Home", "Menu", "Enter"]) -> Arguments:
    return {"action": "system_button", "button": name}


def written(text: str) -> Arguments:
    return {"action": "type", "text": text}


def wait(seconds: float = SECONDS) -> Arguments:
    return {"action": "wait", "time": seconds}


def ended(status: Literal["success", "failure"]) -> Arguments:
    return {"action": "terminate", "status": status}


def region(point: Point, size: Size) -> dict[str, list[float]]:
    """Return a point as the argument of a call, rounded to hundredths and without the pixels by which it is beyond the
    screenshot.

    Raises:
        UserError: If it is further away.
    """
    (x, y), (width, height) = point, size
    if not (-OUTSIDE <= x <= width + OUTSIDE and -OUTSIDE <= y <= height + OUTSIDE):
        raise UserError(f"the point [{x:g}, {y:g}] is not inside its screenshot of {width}×{height} pixels")
    return {"point_2d": [round(min(max(x, 0), width), 2), round(min(max(y, 0), height), 2)]}


def described(arguments: Mapping[str, Any]) -> str:
    """Return an action in words without coordinates, for the history of a data set that has none."""
    match arguments:
        case {"action": "type", "text": text}:
            return f"Type '{text}'"
        case {"action": "open", "text": text}:
            return f"Open {text}"
        case {"action": "system_button", "button": name}:
            return f"Press {name}"
        case {"action": "key", "keys": keys}:
            return f"Press {'+'.join(keys)}"
        case {"action": "swipe", "coordinate": {"point_2d": start}, "coordinate2": {"point_2d": end}}:
            return f"Swipe {direction(start, end)}"
        case {"action": "scroll", "pixels": pixels}:
            return "Scroll up" if pixels > 0 else "Scroll down"
        case {"action": "hscroll", "pixels": pixels}:
            return "Scroll right" if pixels > 0 else "Scroll left"
        case {"action": str(action)}:
            return action.replace("_", " ").capitalize()
    raise AssertionError(arguments)
