"""Whether an agent's next step is right."""

from typing import Any

from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.places import Coordinates, distance, is_inside
from qwenvl_train.evaluation.metrics.tool_calls import Call, first_call
from qwenvl_train.evaluation.metrics.words import normalized

DISTANCE = 0.14
"""The distance, as a fraction of the screen, within which a point is right."""
ENLARGED = 1.2
"""The factor by which the box of the element is enlarged."""
_IGNORED = ("time",)
"""Arguments that do not count: how long to wait or press."""


def agent_action(answer: str, expected: str, question: Question) -> dict[str, float]:
    given, wanted = first_call(answer), first_call(expected)
    if wanted is None:
        return {"step": float(given is None), "type": float(given is None)}
    same_type = given is not None and given.type == wanted.type
    rules = _rules(wanted)
    right = {
        key: given is not None and same_type and _is_right(key, rule, given, wanted, question)
        for key, rule in rules.items()
    }
    scores = {"step": float(same_type and all(right.values())), "type": float(same_type)}
    for kind in ("point", "direction", "text"):
        if of_kind := [right[key] for key, rule in rules.items() if rule == kind]:
            scores[kind] = float(all(of_kind))
    return scores


def _rules(wanted: Call) -> dict[str, str]:
    """Return how each argument of the expected action is compared."""
    rules: dict[str, str] = {}
    for key in wanted.arguments:
        match key:
            case "coordinate" if "coordinate2" in wanted.arguments:
                continue
            case "coordinate":
                rules[key] = "point"
            case "coordinate2" | "pixels":
                rules[key] = "direction"
            case "text":
                rules[key] = "text"
            case _ if key not in _IGNORED:
                rules[key] = "value"
    return rules


def _is_right(key: str, rule: str, given: Call, wanted: Call, question: Question) -> bool:
    one, other = given.arguments.get(key), wanted.arguments[key]
    match rule:
        case "point":
            return _is_near(given.point(key, question), wanted.point(key, question), question)
        case "direction":
            return (found := _direction(given, question)) is not None and found == _direction(wanted, question)
        case "text":
            return _is_in(normalized(str(one)), normalized(str(other))) if one is not None else False
    return _plain(one) == _plain(other)


def _is_near(given: Coordinates | None, wanted: Coordinates | None, question: Question) -> bool:
    if given is None or wanted is None:
        return False
    boxes = [_enlarged(box, question) for box in question.targets]
    return distance(given, wanted) <= DISTANCE or any(is_inside(given, box) for box in boxes)


def _enlarged(box: tuple[float, ...], question: Question) -> Coordinates:
    """Return a box in pixels of the original picture as fractions, enlarged around its middle."""
    assert question.picture is not None, "boxes in pixels need the size of the picture"
    height, width = question.picture.original
    x1, y1, x2, y2 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    wider, higher = (ENLARGED - 1) * (x2 - x1) / 2, (ENLARGED - 1) * (y2 - y1) / 2
    return x1 - wider, y1 - higher, x2 + wider, y2 + higher


def _direction(call: Call, question: Question) -> str | None:
    """Return the direction of a swipe or of scrolled pixels. None if there is none."""
    match call.arguments.get("pixels"):
        case int() | float() as pixels if pixels:
            return "up" if pixels > 0 else "down"
    start, end = call.point("coordinate", question), call.point("coordinate2", question)
    if start is None or end is None or start == end:
        return None
    across, down = end[0] - start[0], end[1] - start[1]
    if abs(across) > abs(down):
        return "right" if across > 0 else "left"
    return "down" if down > 0 else "up"


def _is_in(given: str, wanted: str) -> bool:
    """Return whether one of two texts contains the other. An empty text contains only itself."""
    return given == wanted or bool(given and wanted and (given in wanted or wanted in given))


def _plain(value: Any) -> Any:
    match value:
        case str():
            return normalized(value)
        case list():
            return [_plain(one) for one in value]
        case dict():
            return {key: _plain(one) for key, one in value.items()}
    return value


AGENT_ACTION = Metric(
    "agent_action",
    "Qwen's evaluator as in AgentCPM-GUI: same action; a point in the element's box × 1.2 or within 0.14 of the "
    "screen; a text that contains the other; swipes and scrolls by direction; step is right if all of it is",
    agent_action,
)
