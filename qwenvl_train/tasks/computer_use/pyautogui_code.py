"""Calls of computer_use from pyautogui code with coordinates as fractions of the screen, as AgentNet has it, and back.
The code is parsed and never run."""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.agents.actions import SECONDS, Arguments, Point, Size, at, ended, wait, written
from qwenvl_train.tasks.numbers import number

_LONGEST = 20_000
"""The most characters of code that are parsed."""
_TIMING = ("duration", "interval", "tween", "pause", "logScreenshot", "_pause")
"""Arguments that do not change what is done."""
_CLICKS = {1: "left_click", 2: "double_click", 3: "triple_click"}
_DIGITS = 4
"""The decimals of coordinates in code: AgentNet's."""


@dataclass(frozen=True)
class Called:
    """A call in the code."""

    text: str
    args: Sequence[Any]
    named: Mapping[str, Any]
    size: Size

    def bound(self, *names: str) -> dict[str, Any]:
        """Return the arguments by name. Those that are None or change nothing are left out.

        Raises:
            UserError: If there are others.
        """
        values = dict(zip(names, self.args, strict=False))
        if len(self.args) > len(names) or self.named.keys() & values.keys():
            raise self.refused()
        values |= self.named
        if values.keys() - set(names) - set(_TIMING):
            raise self.refused()
        return {name: value for name, value in values.items() if value is not None and name not in _TIMING}

    def at(self, action: str, values: Mapping[str, Any], **more: Any) -> Arguments:
        """Return an action at the point of the arguments, or where the mouse is if they have none."""
        match values.get("x"), values.get("y"):
            case None, None:
                return {"action": action, **more}
            case (int() | float() as x, int() | float() as y) if 0 <= x <= 1 and 0 <= y <= 1:
                return at(action, (x * self.size[0], y * self.size[1]), self.size, **more)
        raise UserError(f"{self.text} has no point in fractions of the screen")

    def refused(self) -> UserError:
        return UserError(f"{self.text} is no call that is known here")


def actions_in(code: str, size: Size) -> list[Arguments]:
    """Return the actions of some code, with points in pixels.

    Raises:
        UserError: If anything in it is unknown.
    """
    if len(code) > _LONGEST:
        raise UserError(f"the code has {len(code):,} characters, more than {_LONGEST:,}")
    try:
        statements = ast.parse(code := code.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"{_shown(code)} is no Python code") from None
    if not statements:
        raise UserError("the code is empty")
    return [
        action
        for statement in statements
        for action in _actions(statement, _shown(ast.get_source_segment(code, statement) or code), size)
    ]


def _actions(statement: ast.stmt, text: str, size: Size) -> Iterator[Arguments]:
    match statement:
        case ast.Expr(ast.Call(ast.Attribute(ast.Name("pyautogui" | "computer" as module), name), args, named)):
            called = Called(text, *_literals(args, named, text), size)
        case _:
            raise UserError(f"{text} is no call that is known here")
    read = _READ.get(f"{module}.{name}")
    if read is None:
        raise called.refused()
    yield from read(called)


def _literals(args: list[ast.expr], named: list[ast.keyword], text: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        return [ast.literal_eval(one) for one in args], {str(one.arg): ast.literal_eval(one.value) for one in named}
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise UserError(f"{text} has an argument that is no literal") from None


def _shown(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= 80 else f"{words[:79]}…")


def _click(called: Called) -> list[Arguments]:
    values = called.bound("x", "y", "clicks", "interval", "button")
    match values.get("button", "left"), values.get("clicks", 1):
        case "left", (1 | 2 | 3) as clicks:
            return [called.at(_CLICKS[clicks], values)]
        case ("right" | "middle") as button, 1:
            return [called.at(f"{button}_click", values)]
    raise called.refused()


def _simple(action: str) -> Callable[[Called], list[Arguments]]:
    return lambda called: [called.at(action, called.bound("x", "y"))]


def _move(called: Called) -> list[Arguments]:
    return [_placed(called, "mouse_move", called.bound("x", "y", "duration"))]


def _drag(called: Called) -> list[Arguments]:
    values = called.bound("x", "y", "duration", "tween", "button")
    if values.get("button", "left") != "left":
        raise called.refused()
    return [_placed(called, "left_click_drag", values)]


def _placed(called: Called, action: str, values: Mapping[str, Any]) -> Arguments:
    if "x" not in values:
        raise called.refused()
    return called.at(action, values)


def _scroll(action: str) -> Callable[[Called], list[Arguments]]:
    def read(called: Called) -> list[Arguments]:
        values = called.bound("clicks", "x", "y")
        match values.get("clicks"):
            case pixels if number(pixels):
                return [called.at(action, values, pixels=pixels)]
        raise called.refused()

    return read


def _write(called: Called) -> list[Arguments]:
    match called.bound("message", "interval"):
        case {"message": str(text)} if text:
            return [written(text)]
    raise called.refused()


def _press(called: Called) -> list[Arguments]:
    name = "key" if "key" in called.named else "keys"
    values = called.bound(name, "presses", "interval")
    given, presses = values.get(name), values.get("presses", 1)
    keys = _keys(given if isinstance(given, list) else [given], called)
    if not isinstance(presses, int) or not 1 <= presses <= 100:
        raise called.refused()
    return [{"action": "key", "keys": [key]} for _ in range(presses) for key in keys]


def _hotkey(called: Called) -> list[Arguments]:
    if called.named.keys() - set(_TIMING):
        raise called.refused()
    match called.args:
        case [list(keys)]:
            return [{"action": "key", "keys": _keys(keys, called)}]
    return [{"action": "key", "keys": _keys(called.args, called)}]


def _keys(given: Sequence[Any], called: Called) -> list[str]:
    if not given or not all(isinstance(key, str) and key for key in given):
        raise called.refused()
    return list(given)


def _wait(called: Called) -> list[Arguments]:
    match called.bound("seconds").get("seconds", SECONDS):
        case seconds if (number(seconds) or 0) > 0:
            return [wait(seconds)]
    raise called.refused()


def _terminate(called: Called) -> list[Arguments]:
    match called.bound("status"):
        case {"status": "success" | "failure" as status}:
            return [ended(status)]
    raise called.refused()


_READ: dict[str, Callable[[Called], list[Arguments]]] = {
    "pyautogui.click": _click,
    "pyautogui.doubleClick": _simple("double_click"),
    "pyautogui.tripleClick": _simple("triple_click"),
    "pyautogui.rightClick": _simple("right_click"),
    "pyautogui.middleClick": _simple("middle_click"),
    "computer.tripleClick": _simple("triple_click"),
    "computer.triple_click": _simple("triple_click"),
    "pyautogui.moveTo": _move,
    "pyautogui.dragTo": _drag,
    "pyautogui.scroll": _scroll("scroll"),
    "pyautogui.hscroll": _scroll("hscroll"),
    "pyautogui.write": _write,
    "pyautogui.typewrite": _write,
    "pyautogui.press": _press,
    "pyautogui.hotkey": _hotkey,
    "computer.wait": _wait,
    "computer.terminate": _terminate,
}
_AT_POINT = {
    "left_click": "pyautogui.click",
    "double_click": "pyautogui.doubleClick",
    "triple_click": "computer.tripleClick",
    "right_click": "pyautogui.rightClick",
    "middle_click": "pyautogui.middleClick",
    "mouse_move": "pyautogui.moveTo",
}


def code_of(actions: Sequence[Mapping[str, Any]], size: Size) -> str:
    """Return the code of some actions, a call on each line. Points are [x, y] in pixels, or as in rows.

    Raises:
        UserError: If there is no call for one of them.
    """
    return "\n".join(_call_of(action, size) for action in actions)


def _call_of(action: Mapping[str, Any], size: Size) -> str:
    x_and_y = [f"{name}={value}" for name, value in zip("xy", _fractions(action, size), strict=False)]
    match action:
        case {"action": str(name)} if name in _AT_POINT:
            return _written(_AT_POINT[name], *x_and_y)
        case {"action": "left_click_drag"}:
            return _written("pyautogui.dragTo", *x_and_y, "button='left'")
        case {"action": "scroll" | "hscroll" as name, "pixels": pixels}:
            return _written(f"pyautogui.{name}", repr(pixels), *x_and_y)
        case {"action": "type", "text": str(text)}:
            return _written("pyautogui.write", f"message={text!r}")
        case {"action": "key", "keys": [str(key)]}:
            return _written("pyautogui.press", repr(key))
        case {"action": "key", "keys": list(keys)}:
            return _written("pyautogui.hotkey", *map(repr, keys))
        case {"action": "wait"}:
            seconds = action.get("time", SECONDS)
            return _written("computer.wait", *([] if seconds == SECONDS else [repr(seconds)]))
        case {"action": "terminate", "status": str(status)}:
            return _written("computer.terminate", f"status={status!r}")
    raise UserError(f"the action {dict(action)} has no call of pyautogui")


def _written(name: str, *arguments: str) -> str:
    return f"{name}({', '.join(arguments)})"


def _fractions(action: Mapping[str, Any], size: Size) -> Point | tuple[()]:
    match action.get("coordinate"):
        case [x, y] | {"point_2d": [x, y]}:
            return round(x / size[0], _DIGITS), round(y / size[1], _DIGITS)
    return ()
