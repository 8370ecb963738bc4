"""Whether an agent's next step is right, by the rules of different evaluators."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.places import Coordinates, box_in_fractions, direction, distance, is_inside
from qwenvl_train.evaluation.metrics.tool_calls import Call, calls_in
from qwenvl_train.evaluation.metrics.words import normalized

F1 = 0.5
"""The F1 of words above which OS-Atlas takes two texts as equal."""
_IGNORED = ("time",)
"""Arguments that do not count: how long to wait or press."""


def one_contains_the_other(given: str, wanted: str) -> bool:
    """Return whether one of two texts contains the other. An empty text contains only itself."""
    given, wanted = normalized(given), normalized(wanted)
    return given == wanted or bool(given and wanted and (given in wanted or wanted in given))


def share_their_words(given: str, wanted: str) -> bool:
    one, other = set(given.lower().split()), set(wanted.lower().split())
    return given == wanted or 2 * len(one & other) > F1 * (len(one) + len(other))


@dataclass(frozen=True)
class Convention:
    """What an evaluator takes as right."""

    distance: float
    """The distance, as a fraction of the screen, within which a point is right."""
    box: float | None
    """The factor by which the box of the element is enlarged, inside which a point is right. With None, boxes do not
    count."""
    same_text: Callable[[str, str], bool]
    """Whether a given and an expected text are the same."""

    def score(self, answer: str, expected: str, question: Question) -> dict[str, float]:
        """Return the scores of a step. If several calls are expected, all of them must be right, in their order."""
        given, wanted = calls_in(answer), calls_in(expected)
        if not wanted:
            return {"step": float(not given), "type": float(not given)}
        padded: list[Call | None] = [*given, *[None] * len(wanted)]
        return _worst([self._scores(one, other, question) for one, other in zip(padded, wanted, strict=False)])

    def _scores(self, given: Call | None, wanted: Call, question: Question) -> dict[str, float]:
        same_type = given is not None and given.type == wanted.type
        rules = _rules(wanted)
        right = {
            key: given is not None and same_type and self._is_right(key, rule, given, wanted, question)
            for key, rule in rules.items()
        }
        scores = {"step": float(same_type and all(right.values())), "type": float(same_type)}
        for kind in ("point", "direction", "text"):
            if of_kind := [right[key] for key, rule in rules.items() if rule == kind]:
                scores[kind] = float(all(of_kind))
        return scores

    def _is_right(self, key: str, rule: str, given: Call, wanted: Call, question: Question) -> bool:
        one, other = given.arguments.get(key), wanted.arguments[key]
        match rule:
            case "point":
                return self._is_near(given.point(key, question), wanted.point(key, question), question)
            case "direction":
                return (found := _direction(given, question)) is not None and found == _direction(wanted, question)
            case "text":
                return one is not None and self.same_text(str(one), str(other))
        return _plain(one) == _plain(other)

    def _is_near(self, given: Coordinates | None, wanted: Coordinates | None, question: Question) -> bool:
        if given is None or wanted is None:
            return False
        boxes = [] if self.box is None else [box_in_fractions(box, question, self.box) for box in question.targets]
        return distance(given, wanted) <= self.distance or any(is_inside(given, box) for box in boxes)


def _worst(calls: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the least of each score over the calls that have it."""
    names: Iterable[str] = dict.fromkeys(name for scores in calls for name in scores)
    return {name: min(scores[name] for scores in calls if name in scores) for name in names}


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


def _direction(call: Call, question: Question) -> str | None:
    """Return the direction of a swipe or of scrolled pixels. None if there is none."""
    match call.arguments.get("pixels"):
        case int() | float() as pixels if pixels:
            return "up" if pixels > 0 else "down"
    start, end = call.point("coordinate", question), call.point("coordinate2", question)
    return None if start is None or end is None or start == end else direction(start, end)


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
    Convention(0.14, 1.2, one_contains_the_other).score,
    of_episodes=True,
)
ANDROID_CONTROL = Metric(
    "agent_action_android_control",
    "agent_action with a point in a box × 1.2 or within 0.04 of the screen, as Qwen's evaluator has it for "
    "AndroidControl, where targets has the five elements nearest to the point",
    Convention(0.04, 1.2, one_contains_the_other).score,
    of_episodes=True,
)
OS_ATLAS = Metric(
    "agent_action_os_atlas",
    "agent_action with a point within 0.14 of the screen, whatever the element's box, and texts whose F1 of words is "
    "above 0.5 (OS-Atlas)",
    Convention(0.14, None, share_their_words).score,
    of_episodes=True,
)
