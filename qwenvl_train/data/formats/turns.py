"""Bring the turns of a raw row into one form, before their text is converted to parts."""

from dataclasses import dataclass, replace

from qwenvl_train.data.formats.keys import present, refuse_unknown
from qwenvl_train.data.formats.tools import read_calls
from qwenvl_train.data.media.locate import shown
from qwenvl_train.data.sample import ToolCall
from qwenvl_train.errors import UserError

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "tool_response": "tool",
}
_CALLING = ("function_call", "tool_call")
_FLAGS = ("train", "loss", "weight")
_KNOWN = {"assistant": ("tool_calls", "reasoning_content", *_FLAGS), "tool": ("name", "tool_call_id", *_FLAGS)}
_FOLLOWERS = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}


@dataclass(frozen=True)
class RawTurn:
    role: str
    content: str | list
    place: str
    """The name of this turn in error messages."""
    train: bool | None = None
    """Whether the turn is trained, or None when the row does not say."""
    calls: tuple[ToolCall, ...] = ()
    """The tool calls after the content."""
    thoughts: str | None = None
    """The thoughts before the content, if the row gives them apart from it."""

    @property
    def words(self) -> tuple[object, ...]:
        """The values by which two turns are compared: turns with equal values are the same."""
        return self.role, self.content, self.calls, self.thoughts


def listed_turns(row: dict, key: str, where: str) -> list[RawTurn]:
    """Return the turns of a column that is a list of turns, as `conversations` and `messages` are."""
    if not isinstance(row.get(key), list) or not row[key]:
        raise UserError(f"{where}: {key!r} is {shown(row.get(key))}; it must be a list of turns that is not empty.")
    return _turns(row[key], f"{where}, turn")


def column_turns(row: dict, key: str, role: str, where: str) -> list[RawTurn]:
    """Return the turns of a column that holds the text of a turn of `role`, or one turn, or a list of turns."""
    match row.get(key):
        case str(text):
            return [RawTurn(role, text, f"{where}, {key}")]
        case dict(turn):
            return [_raw_turn(turn, f"{where}, {key}")]
        case list(turns) if turns:
            return _turns(turns, f"{where}, {key} turn")
    raise UserError(f"{where}: {key!r} is {shown(row.get(key))}; give text or a list of turns.")


def check_order(turns: list[RawTurn]) -> None:
    previous = ""
    for turn in turns:
        if turn.role not in _FOLLOWERS[previous]:
            after = f"after {previous!r}" if previous else "at the start"
            raise UserError(f"{turn.place}: the role {turn.role!r} is not allowed {after}. {_rule(turns)}")
        previous = turn.role
    if previous != "assistant":
        raise UserError(f"{turns[-1].place}: the last turn has the role {previous!r} and no answer. {_rule(turns)}")


def _rule(turns: list[RawTurn]) -> str:
    roles = [turn.role for turn in turns]
    listed = ", ".join(roles if len(roles) <= 8 else [*roles[:8], "…"])
    return (
        "After an optional system turn, user and assistant alternate, tools answer an assistant, "
        f"and the assistant is last; the roles here are {listed}."
    )


def _turns(turns: list, place: str) -> list[RawTurn]:
    raw_turns: list[RawTurn] = []
    for number, value in enumerate(turns, start=1):
        turn = _raw_turn(value, f"{place} {number}")
        # A tool call in a turn of its own belongs to the answer before it.
        last = raw_turns[-1] if raw_turns else None
        alone = turn.calls and not turn.content and turn.thoughts is None
        if last and alone and last.role == "assistant" and last.train == turn.train:
            raw_turns[-1] = replace(last, calls=last.calls + turn.calls)
        else:
            raw_turns.append(turn)
    return raw_turns


def _raw_turn(value: object, place: str) -> RawTurn:
    if not isinstance(value, dict):
        raise UserError(f"{place} is {shown(value)}; a turn has a 'role' and 'content', or 'from' and 'value'.")
    turn = present(value)
    speaker, words = ("from", "value") if "from" in turn else ("role", "content")
    name = turn.get(speaker)
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise UserError(f"{place} has the unknown role {shown(name)}; known roles: {', '.join(ROLES)}.")
    refuse_unknown(turn, {speaker, words, *_KNOWN.get(role, _FLAGS)}, place)
    content = turn.get(words)
    calls: tuple[ToolCall, ...] = ()
    if name in _CALLING:
        calls, content = read_calls(content, place), ""
    elif "tool_calls" in turn:
        calls, content = read_calls(turn["tool_calls"], place), content or ""
    if not isinstance(content, str | list):
        raise UserError(f"{place}: {words} is {shown(content)}; give text or a list of parts.")
    thoughts = turn.get("reasoning_content")
    if not isinstance(thoughts, str | None):
        raise UserError(f"{place}: reasoning_content is {shown(thoughts)}; give text.")
    return RawTurn(role, content, place, _trained(turn, role, place), calls, thoughts)


def _trained(turn: dict, role: str, place: str) -> bool | None:
    flags = {key: turn[key] for key in _FLAGS if key in turn}
    for key, value in flags.items():
        if value not in (0, 1):
            raise UserError(f"{place}: {key} is {shown(value)}; give true or 1 (trained), or false or 0 (not trained).")
    if len({bool(value) for value in flags.values()}) > 1:
        raise UserError(f"{place}: {' and '.join(flags)} disagree; keep one of them.")
    if any(flags.values()) and role != "assistant":
        raise UserError(f"{place} has the role {role!r}; only turns of the assistant can be trained.")
    return bool(next(iter(flags.values()))) if flags else None
