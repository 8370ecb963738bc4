"""AndroidControl, GUI-Odyssey, AitW, AitZ and AMEX, written by hand after their published descriptions, and the calls
that each generation reads."""

import json
from pathlib import Path
from typing import Any

import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.render.regions import with_written_tools
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.metric import Picture, Question
from qwenvl_train.evaluation.metrics.tool_calls import first_call
from qwenvl_train.families import FAMILIES
from qwenvl_train.tasks.agents.steps import asked
from qwenvl_train.tasks.converter import Empty, Prompts, Refused, RowOptions
from qwenvl_train.verbs.table import load_verb
from tests.tasks.conftest import converted

SIZE = (200, 400)
"""Width and height of all screenshots."""


def call_of(row: Any) -> dict:
    (call,) = row["messages"][1]["tool_calls"]
    assert call["function"]["name"] == "mobile_use"
    return call["function"]["arguments"]


def question_of(row: Any) -> str:
    content = row["messages"][0]["content"]
    return "".join(part["text"] if part["type"] == "text" else "<image>" for part in content)


def at(x: float, y: float) -> dict:
    return {"point_2d": [x, y]}


@pytest.fixture
def screens(draw):
    """Draw 0.png to 9.png."""
    return [draw(f"{number}.png", SIZE) for number in range(10)]


TREE = (
    "windows { tree { nodes { bounds_in_screen { right: 200 bottom: 400 } } "
    "nodes { bounds_in_screen {\n left: 80\n top: 90\n right: 120\n bottom: 110 } } } }"
)
NODES = [{"bounds_in_screen": {"left": 80, "top": 90, "right": 120, "bottom": 110}, "text": "OK"}]


def control(*actions: dict | str, **changes) -> dict:
    given = [one if isinstance(one, str) else json.dumps(one) for one in actions]
    return {
        "episode_id": [7],
        "goal": ["Open the first post"],
        "screenshot_path": [f"{number}.png" for number in range(len(given) + 1)],
        "screenshot_widths": [200] * (len(given) + 1),
        "screenshot_heights": [400] * (len(given) + 1),
        "step_instructions": [f"Do {number}." for number in range(1, len(given) + 1)],
        "actions": given,
        "accessibility_tree": [TREE] * (len(given) + 1),
    } | changes


NO_LEFT = {"bounds": {"left": None}}


TAP = {"action_type": "click", "x": 100, "y": 100}


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (TAP, {"action": "click", "coordinate": at(100, 100)}),
        (TAP | {"action_type": "long_press"}, {"action": "long_press", "coordinate": at(100, 100), "time": 2}),
        # The content moves down, so the finger moves up, by 0.3 of the screen.
        (
            {"action_type": "scroll", "direction": "down"},
            {"action": "swipe", "coordinate": at(100, 200), "coordinate2": at(100, 80)},
        ),
        (
            {"action_type": "scroll", "direction": "left", "x": 150, "y": 30},
            {"action": "swipe", "coordinate": at(150, 30), "coordinate2": at(200, 30)},
        ),
        # There is no room above the point, which is at the edge.
        (
            {"action_type": "scroll", "direction": "down", "x": 100, "y": 0},
            {"action": "swipe", "coordinate": at(100, 120), "coordinate2": at(100, 0)},
        ),
        ({"action_type": "input_text", "text": "Musk"}, {"action": "type", "text": "Musk"}),
        ({"action_type": "open_app", "app_name": "Zoho Meet"}, {"action": "open", "text": "Zoho Meet"}),
        ({"action_type": "navigate_home"}, {"action": "system_button", "button": "Home"}),
        ({"action_type": "navigate_back"}, {"action": "system_button", "button": "Back"}),
        ({"action_type": "wait"}, {"action": "wait", "time": 2}),
    ],
)
def test_actions_of_android_control(action, expected, screens, write):
    row, last = converted("mobile_agent", write("ac.jsonl", [control(action)]))
    assert call_of(row) == expected
    assert call_of(last) == {"action": "terminate", "status": "success"}
    assert (row["tools"], row["images"]) == (["mobile_use"], [str(screens[0])])
    assert (row["id"], row["episode"]) == ("7/1", {"id": "7", "steps": 2})


def test_the_question_tells_what_was_done(screens, write):
    source = write("ac.jsonl", [control(TAP, {"action_type": "wait"}, step_instructions=['Tap "OK".\n', "Wait"])])
    prompt = "The user query: {query}.\nTask progress: {history}.\n<image>"
    rows = converted("mobile_agent", source, prompt=prompt)
    assert [question_of(row) for row in rows] == [
        "The user query: Open the first post.\nTask progress: .\n<image>",
        "The user query: Open the first post.\nTask progress: Step 1: Tap OK.; .\n<image>",
        "The user query: Open the first post.\nTask progress: Step 1: Tap OK.; Step 2: Wait; .\n<image>",
    ]
    lines = [question_of(row) for row in converted("mobile_agent", source, prompt="{history_lines}")]
    assert lines == ["<image>None", "<image>Step 1: Tap OK.", "<image>Step 1: Tap OK.\nStep 2: Wait"]


def test_the_question_is_that_of_the_notebook():
    """Qwen3-VL's cookbooks/mobile_agent.ipynb."""
    config = compose(["+task=mobile_agent", "source=a", "to=b.jsonl"], load_verb("convert")).config
    (prompt,) = config.convert.prompts_of("call")
    assert prompt == (
        "The user query: {query}.\nTask progress (You have done the following operation on the current device): "
        "{history}.\n<image>"
    )
    assert "\n- Output exactly in the order: Thought, Action, <tool_call>.\n" in config.convert.system_of(
        "thought_action_call"
    )
    assert config.convert.system_of("call") == ""


@pytest.mark.parametrize(
    "trees", [{"accessibility_tree": [TREE] * 2}, {"accessibility_tree": None, "node_info": [NODES] * 2}]
)
def test_targets_are_the_nearest_elements(trees, screens, write):
    row, last = converted("mobile_agent", write("ac.jsonl", [control(TAP, **trees)]))
    assert row["targets"][0] == [80, 90, 120, 110]
    assert len(row["targets"]) == (1 if "node_info" in trees else 2)
    assert "targets" not in last


def test_only_five_elements_count(screens, write):
    nodes = [{"bounds": {"left": x, "top": 90, "right": x + 2, "bottom": 110}} for x in range(0, 200, 10)]
    row, _ = converted("mobile_agent", write("ac.jsonl", [control(TAP, accessibility_tree=[nodes] * 2)]))
    assert [box[0] for box in row["targets"]] == [100, 90, 110, 80, 120]


def test_points_are_those_of_the_screenshots_file(screens, write):
    """The record tells twice the size of the file."""
    changes = {"screenshot_widths": [400] * 2, "screenshot_heights": [800] * 2}
    row, _ = converted("mobile_agent", write("ac.jsonl", [control(TAP, **changes)]))
    assert call_of(row)["coordinate"] == at(50, 50)
    assert row["targets"][0] == [40, 45, 60, 55]


def test_steps_without_words(screens, write):
    source = write("ac.jsonl", [control(TAP, {"action_type": "wait"}, step_instructions=[None, "Wait"])])
    rows = converted("mobile_agent", source, prompt="{history}")
    assert question_of(rows[1]) == "<image>Step 1: Click; "
    (refused,) = converted("mobile_agent", source, "action_call")
    assert refused.reason == "step 1: it has no words for what is done; set convert.form=call"


def test_forms(screens, write):
    source = write("ac.jsonl", [control(TAP)])
    rows = converted("mobile_agent", source, "action_call", system="Answer so.")
    assert [row["messages"][1]["content"] for row in rows] == ["Action: Do 1.", "Action: Finish the task"]
    assert rows[0]["system"] == "Answer so."
    (refused,) = converted("mobile_agent", source, "thought_action_call")
    assert refused == Refused(f"{source}:1", "step 1: it has no thought; set convert.form=action_call or call")


def test_steps_without_an_action_that_a_generation_lacks(screens, write):
    source = write("ac.jsonl", [control({"action_type": "open_app", "app_name": "X"}, TAP)])
    left_out, *rows = converted("mobile_agent", source, without=frozenset({"open"}), prompt="{history}")
    assert left_out == Empty("7, step 1", "convert.without has open")
    assert [row["id"] for row in rows] == ["7/2", "7/3"]
    assert question_of(rows[0]) == "<image>Step 1: Do 1.; "
    assert [row["episode"]["steps"] for row in rows] == [2, 2]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (control(TAP | {"x": 300}), "step 1: the point [300, 100] is not inside its screenshot of 200×400 pixels"),
        (control(TAP | {"x": None}), "step 1: the action click has no x and y"),
        (control(TAP | {"y": "low"}), "its point is [100, 'low']; expected two numbers"),
        (control({"action_type": "scroll", "direction": "over"}), "the direction 'over' is none of up, down, left"),
        (control({"action_type": "dance"}), "step 1: the action 'dance' is unknown"),
        (control({"action_type": "input_text"}), "step 1: it has no text in text"),
        (control("click"), "the action 'click' is no JSON object"),
        (control(TAP, goal=""), "it has no text in goal"),
        (control(TAP, episode_id=None), "it has no episode_id"),
        (control(TAP, step_instructions=[]), "it has 1 actions, 0 step_instructions and 2 screenshots"),
        (control(TAP, actions="[" * 9000), "expected a list"),
        (control(TAP, step_instructions=[5]), "step 1: its instruction is 5, which is no text"),
        (control(TAP | {"x": 10**400}), "expected two numbers"),
        (control(TAP | {"x": float("nan")}), "step 1: its point is [nan, 100]; expected two numbers"),
        (control(TAP, screenshot_path=["x" * 300, "1.png"]), "cannot be read: File name too long"),
        (control(TAP, screenshot_widths=[10**400] * 2), "expected width and height"),
        (control({"action_type": "tap"}), "the action 'tap' is unknown; known are click, long_press, scroll"),
        (control(TAP, screenshot_heights=[300] * 2), "has 200 x 400 pixels, but screenshot_widths and screenshot_heig"),
        (
            control(TAP, accessibility_tree=[[{"bbox": [0, 0, 9, 9]}]] * 2),
            "no element in accessibility_tree has bounds",
        ),
        (control(TAP, accessibility_tree={"nodes": 1}), "accessibility_tree is {"),
        (control(TAP, accessibility_tree=[NO_LEFT] * 2), "the bounds of an element is [None, 0, 0, 0]; expected four"),
        (control(TAP, accessibility_tree=[f"bounds_in_screen {{ left: {'9' * 5000} }}"] * 2), "expected four numbers"),
        (["a"], "it is no object"),
    ],
)
def test_broken_episodes_of_android_control_are_told(record, reason, screens, write):
    source = write("ac.jsonl", [control(TAP), record])
    *rows, refused = converted("mobile_agent", source)
    assert len(rows) == 2
    assert refused.where == f"{source}:2"
    assert reason in refused.reason


def odyssey(*steps: dict, **changes) -> dict:
    given = [{"screenshot": f"{number}.png", **step} for number, step in enumerate(steps)]
    return {"episode_id": "00a1", "task_info": {"instruction": "Buy it"}, "steps": given} | changes


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"action": "CLICK", "info": [[500, 250]]}, {"action": "click", "coordinate": at(100, 100)}),
        (
            {"action": "LONG_PRESS", "info": [[500, 250]]},
            {"action": "long_press", "coordinate": at(100, 100), "time": 2},
        ),
        ({"action": "CLICK", "info": "KEY_HOME"}, {"action": "system_button", "button": "Home"}),
        ({"action": "CLICK", "info": "KEY_BACK"}, {"action": "system_button", "button": "Back"}),
        ({"action": "CLICK", "info": "KEY_APPSELECT"}, {"action": "system_button", "button": "Menu"}),
        (
            {"action": "SCROLL", "info": [[500, 750], [500, 250]]},
            {"action": "swipe", "coordinate": at(100, 300), "coordinate2": at(100, 100)},
        ),
        ({"action": "TEXT", "info": "shoes"}, {"action": "type", "text": "shoes"}),
        ({"action": "COMPLETE", "info": ""}, {"action": "terminate", "status": "success"}),
        ({"action": "INCOMPLETE", "info": ""}, {"action": "terminate", "status": "failure"}),
    ],
)  # fmt: skip
def test_gui_odyssey(step, expected, screens, write, tmp_path):
    write("annotations/00a1.json", odyssey(step | {"sam2_bbox": []}))
    (row,) = converted("mobile_agent", tmp_path / "annotations", media=tmp_path)
    assert call_of(row) == expected
    assert (row["id"], row["images"], "targets" in row) == ("00a1/1", [str(screens[0])], False)


def test_boxes_and_words_of_gui_odyssey(screens, write):
    step = {"action": "CLICK", "info": [[500, 250]], "sam2_bbox": [450, 200, 550, 300]}
    step |= {"intention": "I need the menu.", "low_level_instruction": "Tap the menu"}
    (row,) = converted("mobile_agent", write("00a1.json", odyssey(step)), "thought_action_call")
    assert row["targets"] == [[90, 80, 110, 120]]
    assert row["messages"][1]["content"] == "Thought: I need the menu.\nAction: Tap the menu"


def test_actions_without_words_are_described(screens, write):
    steps = [
        {"action": "CLICK", "info": [[500, 250]]},
        {"action": "TEXT", "info": "shoes"},
        {"action": "SCROLL", "info": [[500, 750], [500, 250]]},
        {"action": "CLICK", "info": "KEY_BACK"},
        {"action": "COMPLETE", "info": ""},
    ]
    source = write("00a1.json", odyssey(*steps))
    *_, last = converted("mobile_agent", source, prompt="{history}")
    assert question_of(last) == "<image>Step 1: Click; Step 2: Type 'shoes'; Step 3: Swipe up; Step 4: Press Back; "
    (refused,) = converted("mobile_agent", source, "action_call")
    assert refused.reason == "step 1: it has no words for what is done; set convert.form=call"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (odyssey({"action": "CLICK", "info": [[500]]}), "step 1: a point of info is [500]; expected two numbers"),
        (odyssey({"action": "CLICK", "info": [[1, 2], [3, 4]]}), "expected 1 points"),
        (odyssey({"action": "CLICK", "info": "KEY_POWER"}), "info is 'KEY_POWER'; expected a list"),
        (odyssey({"action": "JUMP"}), "step 1: the action 'JUMP' is unknown"),
        (odyssey({"action": "CLICK", "info": [[1, 2]], "sam2_bbox": [1, 2]}), "sam2_bbox is [1, 2]; expected four"),
        (odyssey({"action": "CLICK", "info": [[1, 2]], "sam2_bbox": [1, 2, 3, 10**400]}), "expected four numbers"),
        (odyssey({"action": "COMPLETE", "screenshot": None}), "step 1: it has no text in screenshot"),
        (odyssey({"action": "COMPLETE"}, steps=None), "it must have episode_id, task_info and steps"),
    ],
)
def test_broken_episodes_of_gui_odyssey_are_told(record, reason, screens, write):
    source = write("a.json", record)
    (refused,) = converted("mobile_agent", source, format="gui_odyssey")
    assert refused.where == str(source)
    assert reason in refused.reason


def wild(code: int, step: int = 0, **changes) -> dict:
    return {
        "episode_id": "17",
        "step_id": step,
        "instruction": "Open the settings",
        "image_path": f"{step}.png",
        "result_action_type": code,
        "result_action_text": "",
        "result_touch_yx": "[-1.0, -1.0]",
        "result_lift_yx": "[-1.0, -1.0]",
        "ui_positions": "[[90, 80, 20, 40], [0, 0, 30, 30]]",
    } | changes


TOUCH = {"result_touch_yx": "[0.25, 0.5]", "result_lift_yx": "[0.25, 0.5]"}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (wild(4, **TOUCH), {"action": "click", "coordinate": at(100, 100)}),
        (wild(4, **TOUCH | {"result_lift_yx": "[0.29, 0.5]"}), {"action": "click", "coordinate": at(100, 100)}),
        (
            wild(4, **TOUCH | {"result_lift_yx": "[0.75, 0.5]"}),
            {"action": "swipe", "coordinate": at(100, 100), "coordinate2": at(100, 300)},
        ),
        (wild(0, **TOUCH), {"action": "long_press", "coordinate": at(100, 100), "time": 2}),
        (wild(1), {"action": "wait", "time": 2}),
        (wild(3, result_action_text="wifi"), {"action": "type", "text": "wifi"}),
        (wild(5), {"action": "system_button", "button": "Back"}),
        (wild(6), {"action": "system_button", "button": "Home"}),
        (wild(7), {"action": "system_button", "button": "Enter"}),
        (wild(10), {"action": "terminate", "status": "success"}),
        (wild(11), {"action": "terminate", "status": "failure"}),
    ],
)
def test_actions_of_aitw(record, expected, screens, write):
    (row,) = converted("mobile_agent", write("17.json", [record]))
    assert call_of(row) == expected
    assert (row["id"], row["episode"]) == ("17/1", {"id": "17", "steps": 1})


@pytest.mark.parametrize(
    ("touch", "targets"),
    [
        ([0.25, 0.5], [[80, 90, 120, 110]]),
        ([0.25, 0.61], [[80, 90, 120, 110]]),  # within a tenth of its width beyond it
        ([0.25, 0.63], None),
    ],
)
@pytest.mark.parametrize("unit", ["pixels", "fractions"])
def test_targets_of_aitw_are_the_boxes_around_the_touch(touch, targets, unit, screens, write):
    positions = [[90, 80, 20, 40], [0, 0, 30, 30]]
    if unit == "fractions":
        positions = [[y / 400, x / 200, h / 400, w / 200] for y, x, h, w in positions]
    record = wild(4, result_touch_yx=touch, result_lift_yx=touch, ui_positions=positions)
    (row,) = converted("mobile_agent", write("17.json", [record]))
    assert row.get("targets") == targets


def test_episodes_of_aitz(screens, write, tmp_path):
    """A folder of episodes, with words for each step. Absolute paths are looked for by their ends."""
    words = {"coat_action_think": "I must scroll.", "coat_action_desc": "scroll up"}
    steps = [wild(5, 0, **words), wild(10, 1, **words, image_path="/export/data/1.png")]
    write("train/a/17.json", steps), write("train/b/18.json", [wild(6, 2, episode_id="18", **words)])
    rows = converted(
        "mobile_agent", tmp_path / "train", "thought_action_call", prompt="{query} {history}", media=tmp_path
    )
    assert [row["id"] for row in rows] == ["17/1", "17/2", "18/1"]
    assert [row["images"] for row in rows] == [[str(screens[number])] for number in range(3)]
    assert rows[0]["messages"][1]["content"] == "Thought: I must scroll.\nAction: scroll up"
    assert question_of(rows[1]) == "<image>Open the settings Step 1: scroll up; "


def test_an_episode_of_aitw_that_comes_again_is_told(screens, write, tmp_path):
    source = write("wild/a.json", [wild(5, 0), wild(6, 1, episode_id="18"), wild(10, 2)])
    write("wild/b.json", [wild(6, 3, episode_id="18")])
    *rows, again, in_another_file = converted("mobile_agent", tmp_path / "wild", media=tmp_path)
    assert [row["id"] for row in rows] == ["17/1", "18/1"]
    assert again == Refused(
        f"{source}, episode 17", f"{source}, record 3 comes after another episode; put all steps of one together"
    )
    assert in_another_file.where == f"{tmp_path}/wild/b.json, episode 18"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (wild(4, **TOUCH | {"result_touch_yx": "[25, 50]"}), "expected fractions of the screen as [y, x]"),
        (wild(4, **TOUCH | {"result_lift_yx": "here"}), "result_lift_yx is 'here'; expected two numbers"),
        (wild(4, **TOUCH, ui_positions=[[1, 2, 3, 10**400]]), "expected [y, x, height, width]"),
        (wild(9), "step 1: the result_action_type 9 is unknown"),
        (wild(3), "step 1: it has no text in result_action_text"),
        (
            wild(4, **TOUCH, ui_positions="[[1, 2]]"),
            "an entry of ui_positions is [1, 2]; expected [y, x, height, width]",
        ),
        (wild(5, instruction=None), "it has no text in instruction or goal or goal_info"),
    ],
)
def test_broken_episodes_of_aitw_are_told(record, reason, screens, write):
    source = write("17.json", [record])
    (refused,) = converted("mobile_agent", source)
    assert refused.where == f"{source}, episode 17"
    assert reason in refused.reason
    (nameless,) = converted("mobile_agent", write("18.json", [wild(5, episode_id=None)]), format="aitw")
    assert nameless.reason == "it has no episode_id"


def amex(*steps: dict, **changes) -> dict:
    given = [
        {"step_id": number, "image_path": f"{number}.png", "device_dim": [400, 800], **step}
        for number, step in enumerate(steps)
    ]
    return {"episode_id": "a3", "instruction": "Set an alarm", "steps": given} | changes


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"action": "TAP", "touch_coord": [200, 200]}, {"action": "click", "coordinate": at(100, 100)}),
        (
            {"action": "SWIPE", "touch_coord": [200, 600], "lift_coord": [200, 200]},
            {"action": "swipe", "coordinate": at(100, 300), "coordinate2": at(100, 100)},
        ),
        ({"action": "TYPE", "type_text": "7"}, {"action": "type", "text": "7"}),
        ({"action": "PRESS_BACK"}, {"action": "system_button", "button": "Back"}),
        ({"action": "PRESS_HOME"}, {"action": "system_button", "button": "Home"}),
        ({"action": "PRESS_ENTER"}, {"action": "system_button", "button": "Enter"}),
        ({"action": "TASK_COMPLETE"}, {"action": "terminate", "status": "success"}),
        ({"action": "TASK_IMPOSSIBLE"}, {"action": "terminate", "status": "failure"}),
    ],
)
def test_amex(step, expected, screens, write):
    """The device has twice the size of the screenshots."""
    (row,) = converted("mobile_agent", write("a3.json", amex(step)))
    assert (call_of(row), row["id"]) == (expected, "a3/1")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (amex({"action": "TAP"}), "step 1: touch_coord is None; expected two numbers"),
        (amex({"action": "TAP", "touch_coord": [1, 2], "device_dim": [0, 0]}), "device_dim is [0, 0]; expected width"),
        (amex({"action": "TAP", "touch_coord": [900, 2]}), "is not inside its screenshot of 200×400 pixels"),
        (amex({"action": "SHAKE"}), "step 1: the action 'SHAKE' is unknown"),
        (amex({"action": "TYPE"}), "step 1: it has no text in type_text"),
    ],
)
def test_broken_episodes_of_amex_are_told(record, reason, screens, write):
    source = write("a3.json", record)
    (refused,) = converted("mobile_agent", source)
    assert refused.where == str(source)
    assert reason in refused.reason


def test_a_screenshot_that_is_missing_is_told(screens, write):
    source = write("a3.json", amex({"action": "PRESS_BACK", "image_path": "none.png"}))
    (refused,) = converted("mobile_agent", source)
    assert "step 1: " in refused.reason
    assert "none.png" in refused.reason


def test_absolute_paths_are_looked_for_by_their_longest_end(draw, write, tmp_path):
    steps = [{"action": "PRESS_BACK", "image_path": f"/far/away/shots/{name}"} for name in ("b/0.png", "c/1.png")]
    source = write("a3.json", amex(*steps))
    images = [draw(name, SIZE) for name in ("media/0.png", "media/b/0.png", "media/1.png")]
    rows = converted("mobile_agent", source, media=tmp_path / "media")
    assert [row["images"] for row in rows] == [[str(images[1])], [str(images[2])]]


@pytest.mark.parametrize(
    "name", ["b/0.png", "../0.png", "a/../../0.png", "/far/away/2.png", "/far/../2.png", "x" * 300, f"/{'x' * 300}"]
)
def test_other_screenshots_do_not_stand_for_a_missing_one(name, draw, write, tmp_path):
    """0.png is there in every episode, and once outside the folder of the media."""
    draw("media/0.png", SIZE), draw("0.png", SIZE), draw("2.png", SIZE)
    source = write("a3.json", amex({"action": "PRESS_BACK", "image_path": name}))
    (refused,) = converted("mobile_agent", source, media=tmp_path / "media")
    assert isinstance(refused, Refused)
    assert name[:100] in refused.reason


def test_what_is_no_source_is_told(write):
    with pytest.raises(UserError, match="no format of mobile_agent is found there"):
        converted("mobile_agent", write("other.json", {"a": 1}))


@pytest.mark.parametrize(
    ("family", "resized", "units"),
    [
        ("qwen2_vl", (392, 196), (999, 999)),
        ("qwen2_5_vl", (392, 196), (196, 392)),
        ("qwen3_vl", (416, 192), (999, 999)),
        ("qwen3_5", (416, 192), (999, 999)),
    ],
)
def test_points_come_back_from_the_answers_of_each_generation(family, resized, units, screens, write, tmp_path):
    """From a row to the answer of a generation, and from it to pixels of the screenshot. Rounding to the units of the
    answer moves a point by half a unit at most."""
    row, _ = converted("mobile_agent", write("ac.jsonl", [control(TAP | {"x": 137, "y": 29})]))
    locator = Locator(Path("/"), fenced=False, allow_remote=False, cache=tmp_path)
    sample = to_sample(row, "rows.jsonl", 1, locator, "auto")
    sizes = [((SIZE[1], SIZE[0]), resized)]
    (call,) = with_written_tools(sample, FAMILIES[family], sizes).turns[-1].calls
    written = json.loads(call.arguments)
    assert written["coordinate"] == [round(137 / 200 * units[0]), round(29 / 400 * units[1])]
    answer = f'<tool_call>\n{{"name": "{call.name}", "arguments": {call.arguments}}}\n</tool_call>'
    question = Question(family=FAMILIES[family], picture=Picture((SIZE[1], SIZE[0]), resized))
    x, y = first_call(answer).point("coordinate", question)
    assert (x * SIZE[0], y * SIZE[1]) == pytest.approx((137, 29), abs=0.51 * max(SIZE) / min(units) + 0.2)
    assert sample.episode.steps == 2
    assert len(sample.targets) == 2


def test_marks_in_a_goal_are_plain_text():
    prompts = Prompts(("Do {query} after {history}.<image>",))
    before, after = asked("a", "<image> of {history}", ["x"], RowOptions(prompts, "call"))
    assert (before, after) == ("Do <image> of {history} after Step 1: x; .", "")
