"""The conventions by which evaluators score an agent's steps, ScreenSpot's score, and the scores of whole episodes,
beside values that were worked out by hand."""

import json
from pathlib import Path

import pytest

from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.evaluation.episodes import with_episodes
from qwenvl_train.evaluation.metrics.metric import Picture
from qwenvl_train.evaluation.metrics.table import load_metric
from qwenvl_train.evaluation.scoring import Chosen, Parts, figures_of, score
from qwenvl_train.families.qwen2_5_vl import FAMILY as QWEN2_5_VL
from qwenvl_train.families.qwen3_vl import FAMILY as QWEN3_VL
from tests.evaluation.metric_scores import score as scores_of

SCREEN = Picture(original=(2000, 1000), resized=(2016, 1008))
SEEN = {"family": QWEN3_VL, "picture": SCREEN}
CONVENTIONS = ("agent_action", "agent_action_android_control", "agent_action_os_atlas", "agent_action_odyssey")


def call(action: str, **arguments) -> str:
    content = {"name": "mobile_use", "arguments": {"action": action, **arguments}}
    return f"<tool_call>\n{json.dumps(content)}\n</tool_call>"


def steps(answer: str, expected: str, **question) -> list[float]:
    """The score of a step by each convention."""
    return [scores_of(name, answer, expected, **SEEN, **question)["step"] for name in CONVENTIONS]


CLICK = call("click", coordinate=[500, 500])


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (539, [1, 1, 1, 1]),
        (541, [1, 0, 1, 1]),  # 0.041 of the screen
        (640, [1, 0, 1, 1]),  # 0.14
        (641, [0, 0, 0, 0]),
    ],
)
def test_distances(x, expected):
    assert steps(call("click", coordinate=[x, 500]), CLICK) == expected


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (800, [1, 1, 0, 1]),  # the edge of the box
        (805, [1, 1, 0, 0]),  # within a tenth of its width
        (831, [0, 0, 0, 0]),
    ],
)
def test_boxes(x, expected):
    """The box is from 500 to 800 thousandths of the width, and from 400 to 600 of the height."""
    targets = ((500, 800, 800, 1200),)
    assert steps(call("click", coordinate=[x, 500]), CLICK, targets=targets) == expected


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        ("pizza near me", "Pizza", [1, 1, 0, 1]),  # F1 of words is 2 · 1 / (3 + 1) = 0.5; the edit distance is 9 of 13
        ("pizza here", "pizza", [1, 1, 1, 1]),  # 2 · 1 / (2 + 1) = 0.67
        ("pasta", "pizza", [0, 0, 0, 0]),  # 3 of 5 letters differ
        ("abcd", "abxy", [0, 0, 0, 1]),  # 2 of 4 letters differ
        ("red big dog", "big red cat", [0, 0, 1, 0]),  # 2 · 2 / (3 + 3) = 0.67, and 8 of 11 letters differ
        ("", "pizza", [0, 0, 0, 0]),
    ],
)
def test_texts(given, wanted, expected):
    # GUI-Odyssey counts case: "Pizza" is not in "pizza near me", and 1 − 9 / 13 is 0.31.
    if wanted == "Pizza":
        expected = [1, 1, 0, 0]
    assert steps(call("type", text=given), call("type", text=wanted)) == expected


def test_actions_have_the_same_rules_in_all_conventions():
    down, up = (call("swipe", coordinate=[500, y], coordinate2=[510, 1000 - y]) for y in (200, 800))
    assert steps(down, call("swipe", coordinate=[1, 1], coordinate2=[1, 900])) == [1, 1, 1, 1]
    assert steps(up, down) == [0, 0, 0, 0]
    assert steps(call("system_button", button="Home"), call("system_button", button="Back")) == [0, 0, 0, 0]
    assert steps(call("long_press", coordinate=[500, 500], time=2), CLICK) == [0, 0, 0, 0]


def test_all_calls_of_a_step_must_be_right():
    move, drag = call("mouse_move", coordinate=[100, 100]), call("left_click_drag", coordinate=[500, 500])
    far = call("left_click_drag", coordinate=[900, 500])
    assert scores_of("agent_action", move + drag, move + drag) == {"step": 1, "type": 1, "point": 1}
    assert scores_of("agent_action", move + far, move + drag) == {"step": 0, "type": 1, "point": 0}
    assert scores_of("agent_action", move, move + drag) == {"step": 0, "type": 0, "point": 0}
    assert scores_of("agent_action", drag + move, move + drag) == {"step": 0, "type": 0, "point": 0}
    # Calls beyond those that are expected do not count, as in the evaluators, which read one.
    assert scores_of("agent_action", move + drag, move)["step"] == 1


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (call("left_click", coordinate=[300, 400]), 1),
        (call("click", coordinate=[301, 400]), 0),
        ('[{"point_2d": [200, 300], "label": "x"}]', 1),
        ("[[100, 200, 500, 600]]", 1),  # its middle is 300, 400
        ("[100, 200, 520, 600]", 0),
        ("Close it.", 0),
    ],
)
def test_screenspot(answer, right):
    """The element is from 100 to 300 thousandths of the width, and from 200 to 400 of the height."""
    expected = call("left_click", coordinate=[200, 300])
    assert scores_of("screenspot", answer, expected, **SEEN, targets=((100, 400, 300, 800),)) == {"screenspot": right}
    box = '[{"bbox_2d": [100, 200, 300, 400], "label": "x"}]'
    assert scores_of("screenspot", answer, box, **SEEN) == {"screenspot": right}


def test_screenspot_in_pixels_of_the_resized_picture():
    """302 of 1,008 pixels are 0.2996 of the width, and 303 are 0.3006."""
    for x, right in ((302, 1), (303, 0)):
        answer = call("left_click", coordinate=[x, 700])
        question = {"family": QWEN2_5_VL, "picture": SCREEN, "targets": ((100, 400, 300, 800),)}
        assert scores_of("screenspot", answer, "", **question) == {"screenspot": right}


def rows_of(*episodes: tuple[str, int, str]) -> list[dict]:
    """Rows of predictions.jsonl of episodes: each has an id, a number of steps, and + or - for each answered step."""
    rows: list[dict] = []
    for id, count, right in episodes:
        for one in right:
            answer = CLICK if one == "+" else call("wait")
            rows.append(
                {"index": len(rows), "turn": 1, "entry": "a", "expected": CLICK, "answer": answer, "prompt": "?"}
                | {"episode": {"id": id, "steps": count}}
            )
    return rows


def scored_rows(rows: list[dict]) -> list:
    metrics = {"agent_action": load_metric("agent_action")}
    return with_episodes(score(rows, {"a": Chosen(("agent_action",), "")}, metrics, QWEN3_VL), metrics)


def test_an_episode_is_right_if_each_of_its_steps_is():
    """Five whole episodes, of which two are right. Of the sixth, one of two steps was not answered."""
    rows = rows_of(("1", 2, "++"), ("2", 3, "+-+"), ("3", 1, "+"), ("4", 2, "--"), ("5", 2, "-+"), ("6", 2, "+"))
    scored = scored_rows(rows)
    metrics = {"agent_action": load_metric("agent_action")}
    found = {figure.name: figure for figure in figures_of(scored, metrics, seed=0)}
    assert (found["step"].samples, found["step"].value) == (11, 7 / 11)
    assert (found["episode"].samples, found["episode"].value) == (5, 2 / 5)
    # Wilson's interval of 2 of 5, by scipy's binomtest(2, 5).proportion_ci(method="wilson").
    assert (found["episode"].low, found["episode"].high) == pytest.approx((0.117621, 0.769276), abs=1e-6)
    assert [one.plain()["agent_action"].get("episode") for one in scored] == [
        None, 1, None, None, 0, 1, None, 0, None, 0, None,
    ]  # fmt: skip


def test_two_models_are_compared_by_episodes():
    mine, theirs = (
        Parts.of(scored_rows(rows_of(("1", 2, one), ("2", 2, "+-"))), "agent_action", "episode") for one in ("++", "-+")
    )
    found = mine.compared_with(theirs, seed=0)
    assert (found.samples, found.difference) == (2, -0.5)


@pytest.mark.parametrize("value", ["7", {"id": 7, "steps": 2}, {"id": "7"}, {"id": "7", "steps": 0}, None])
def test_a_column_of_this_name_with_other_content_says_nothing(value):
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    locator = Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/cache"))
    assert to_sample({"messages": turns, "episode": value}, "rows.jsonl", 1, locator, "auto").episode is None


def test_rows_without_episodes_and_other_metrics_have_no_score_of_episodes():
    rows = rows_of(("1", 1, "+"))
    assert "episode" not in scored_rows([{**rows[0], "episode": None}])[0].plain()["agent_action"]
    metrics = {"grounding": load_metric("grounding")}
    (one,) = with_episodes(score(rows, {"a": Chosen(("grounding",), "")}, metrics, QWEN3_VL), metrics)
    assert "episode" not in one.plain()["grounding"]
