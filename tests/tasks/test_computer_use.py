"""AgentNet, OS-Atlas and ScreenSpot, written by hand after their published descriptions; pyautogui code and the calls
that each generation reads."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.render.regions import with_written_tools
from qwenvl_train.data.sample import Sample
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.metric import Picture, Question
from qwenvl_train.evaluation.metrics.table import load_metric
from qwenvl_train.evaluation.metrics.tool_calls import calls_in
from qwenvl_train.families import FAMILIES
from qwenvl_train.tasks.computer_use.pyautogui_code import actions_in, code_of
from qwenvl_train.tasks.converter import Empty
from qwenvl_train.verbs.table import load_verb
from tests.tasks.conftest import converted

SIZE = (400, 200)
"""Width and height of all screenshots."""


def calls_of(row: Any) -> list[dict]:
    calls = [call["function"] for call in row["messages"][1]["tool_calls"]]
    assert {call["name"] for call in calls} == {"computer_use"}
    return [call["arguments"] for call in calls]


def question_of(row: Any) -> str:
    content = row["messages"][0]["content"]
    return "".join(part["text"] if part["type"] == "text" else "<image>" for part in content)


def sample_of(row: Any, cache: Path) -> Sample:
    locator = Locator(Path("/"), fenced=False, allow_remote=False, cache=cache)
    return to_sample(row, "rows.jsonl", 1, locator, "auto")


def at(action: str, x: float, y: float, **more) -> dict:
    return {"action": action, "coordinate": {"point_2d": [x, y]}, **more}


@pytest.fixture
def screens(draw):
    """Draw 0.png to 3.png."""
    return [draw(f"{number}.png", SIZE) for number in range(4)]


CODE = [
    ("pyautogui.click(x=0.1632, y=0.2711)", [at("left_click", 65.28, 54.22)]),
    ("pyautogui.doubleClick(x=0.5, y=0.25)", [at("double_click", 200, 50)]),
    ("computer.tripleClick(x=0.5, y=0.25)", [at("triple_click", 200, 50)]),
    ("pyautogui.rightClick(x=0.5, y=0.25)", [at("right_click", 200, 50)]),
    ("pyautogui.middleClick(x=0.5, y=0.25)", [at("middle_click", 200, 50)]),
    ("pyautogui.moveTo(x=0.5, y=0.25)", [at("mouse_move", 200, 50)]),
    (
        "pyautogui.moveTo(x=0.25, y=0.5)\npyautogui.dragTo(x=0.75, y=0.5, button='left')",
        [at("mouse_move", 100, 100), at("left_click_drag", 300, 100)],
    ),
    ("pyautogui.scroll(-5)", [{"action": "scroll", "pixels": -5}]),
    ("pyautogui.scroll(3, x=0.5, y=0.25)", [at("scroll", 200, 50, pixels=3)]),
    ("pyautogui.hscroll(10)", [{"action": "hscroll", "pixels": 10}]),
    ("pyautogui.write(message='It\\'s \"it\"\\n')", [{"action": "type", "text": 'It\'s "it"\n'}]),
    ("pyautogui.press('enter')", [{"action": "key", "keys": ["enter"]}]),
    ("pyautogui.hotkey('ctrl', 'c')", [{"action": "key", "keys": ["ctrl", "c"]}]),
    ("computer.wait()", [{"action": "wait", "time": 2}]),
    ("computer.wait(5)", [{"action": "wait", "time": 5}]),
    ("computer.terminate(status='success')", [{"action": "terminate", "status": "success"}]),
    ("pyautogui.click()", [{"action": "left_click"}]),
]


@pytest.mark.parametrize(("code", "actions"), CODE)
def test_code_becomes_actions_and_code_again(code, actions):
    assert actions_in(code, SIZE) == actions
    back = code_of(actions, SIZE)
    assert ast.dump(ast.parse(back)) == ast.dump(ast.parse(code))
    assert actions_in(back, SIZE) == actions


@pytest.mark.parametrize("width", [640, 1366, 1920, 3840])
def test_no_decimal_of_a_coordinate_is_lost(width):
    for number in range(0, 10001, 7):
        code = f"pyautogui.click(x={number / 10000}, y={round(1 - number / 10000, 4)})"
        assert code_of(actions_in(code, (width, width)), (width, width)) == code


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ("pyautogui.click(0.5, 0.25)", "pyautogui.click(x=0.5, y=0.25)"),
        ("pyautogui.click(x=0.5, y=0.25, clicks=2, interval=0.1)", "pyautogui.doubleClick(x=0.5, y=0.25)"),
        ("pyautogui.click(0.5, 0.25, 3)", "computer.tripleClick(x=0.5, y=0.25)"),
        ("pyautogui.click(x=0.5, y=0.25, button='right')", "pyautogui.rightClick(x=0.5, y=0.25)"),
        ("pyautogui.click(x=None, y=None)", "pyautogui.click()"),
        ("computer.triple_click(x=0.5, y=0.25)", "pyautogui.tripleClick(x=0.5, y=0.25)"),
        ("pyautogui.dragTo(0.5, 0.25, 1, button='left')", "pyautogui.dragTo(x=0.5, y=0.25)"),
        ("pyautogui.typewrite('a', interval=0.1)", "pyautogui.write(message='a')"),
        ("pyautogui.press(['a', 'b'])", "pyautogui.press('a')\npyautogui.press(keys='b')"),
        ("pyautogui.press('tab', presses=2)", "pyautogui.press('tab'); pyautogui.press('tab')"),
        ("pyautogui.press(key='tab')", "pyautogui.press('tab')"),
        ("pyautogui.hotkey(['ctrl', 'v'])", "pyautogui.hotkey('ctrl', 'v')"),
    ],
)
def test_ways_to_write_the_same(code, same):
    assert actions_in(code, SIZE) == actions_in(same, SIZE)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "the code is empty"),
        ("pyautogui.click(", "'pyautogui.click(' is no Python code"),
        ("(" * 9000, "is no Python code"),
        ("a" * 30000, "the code has 30,000 characters, more than 20,000"),
        (f"pyautogui.scroll({'-' * 900}1)", "has an argument that is no literal"),
        ("\0", "is no Python code"),
        ("import os", "'import os' is no call that is known here"),
        ("os.remove('a')", "\"os.remove('a')\" is no call that is known here"),
        ("pyautogui.alert('hi')", "is no call that is known here"),
        ("pyautogui.keyDown('shift')", "is no call that is known here"),
        ("pyautogui.click(x=width / 2, y=0.5)", "has an argument that is no literal"),
        ("pyautogui.click(*point)", "has an argument that is no literal"),
        ("pyautogui.click(**point)", "has an argument that is no literal"),
        ("pyautogui.click(x=345, y=20)", "'pyautogui.click(x=345, y=20)' has no point in fractions of the screen"),
        ("pyautogui.click(x=0.5)", "has no point in fractions of the screen"),
        ("pyautogui.click('button.png')", "has no point in fractions of the screen"),
        ("pyautogui.click(0.5, x=0.5)", "is no call that is known here"),
        ("pyautogui.click(x=0.5, y=0.5, speed=3)", "is no call that is known here"),
        ("pyautogui.click(x=0.5, y=0.5, clicks=4)", "is no call that is known here"),
        ("pyautogui.moveTo()", "is no call that is known here"),
        ("pyautogui.dragTo(0.5, 0.5, button='right')", "is no call that is known here"),
        ("pyautogui.scroll(0)", "is no call that is known here"),
        ("pyautogui.scroll(1e999)", "is no call that is known here"),
        ("pyautogui.scroll(True)", "is no call that is known here"),
        ("computer.wait(1e999)", "is no call that is known here"),
        (f"computer.wait({'9' * 400})", "is no call that is known here"),
        ("pyautogui.click(x=1e999, y=0.5)", "has no point in fractions of the screen"),
        (f"pyautogui.click(x={'9' * 400}, y=0.5)", "has no point in fractions of the screen"),
        ("pyautogui.write('')", "is no call that is known here"),
        ("pyautogui.press('a', presses=0)", "is no call that is known here"),
        ("pyautogui.hotkey()", "is no call that is known here"),
        ("pyautogui.hotkey(1, 2)", "is no call that is known here"),
        ("computer.terminate(status='maybe')", "is no call that is known here"),
        ("computer.terminate()", "is no call that is known here"),
        ("x = pyautogui.click()", "'x = pyautogui.click()' is no call that is known here"),
        ("pyautogui.click() if 1 else 2", "is no call that is known here"),
    ],
)
def test_unknown_code_is_told(code, words):
    with pytest.raises(UserError) as error:
        actions_in(code, SIZE)
    assert words in str(error.value)


def test_an_action_without_a_call_of_pyautogui_is_told():
    with pytest.raises(UserError, match=r"the action .*answer.* has no call of pyautogui"):
        code_of([{"action": "answer", "text": "42"}], SIZE)


def net(*codes: str, **changes) -> dict:
    steps = [
        {
            "index": number,
            "image": f"{number}.png",
            "value": {"code": code, "action": f"Do {number + 1}", "thought": "So.", "last_step_correct": True},
        }
        for number, code in enumerate(codes)
    ]
    return {"task_id": "2024_a", "instruction": "Sort the table", "traj": steps} | changes


CLICK, DONE = "pyautogui.click(x=0.5, y=0.25)", "computer.terminate(status='success')"


def test_agentnet(screens, write):
    drag = CODE[6][0]
    rows = converted("computer_use", write("net.jsonl", [net(CLICK, drag, DONE)]), prompt="{query}|{history_lines}")
    assert [calls_of(row) for row in rows] == [
        [at("left_click", 200, 50)],
        [at("mouse_move", 100, 100), at("left_click_drag", 300, 100)],
        [{"action": "terminate", "status": "success"}],
    ]
    assert [question_of(row) for row in rows] == [
        "<image>Sort the table|None",
        "<image>Sort the table|Step 1: Do 1",
        "<image>Sort the table|Step 1: Do 1\nStep 2: Do 2",
    ]
    assert (rows[1]["id"], rows[1]["tools"], rows[1]["episode"]) == (
        "2024_a/2", ["computer_use"], {"id": "2024_a", "steps": 3},
    )  # fmt: skip
    (row, *_) = converted("computer_use", write("net.jsonl", [net(CLICK)]), "thought_action_call")
    assert row["messages"][1]["content"] == "Thought: So.\nAction: Do 1"


@pytest.mark.parametrize(("pixels", "words"), [(5, "Scroll right"), (-5, "Scroll left")])
def test_scrolls_to_the_sides_are_described(pixels, words, screens, write):
    record = net(f"pyautogui.hscroll({pixels})", DONE)
    record["traj"][0]["value"]["action"] = ""
    _, row = converted("computer_use", write("net.jsonl", [record]), prompt="{history_lines}")
    assert question_of(row) == f"<image>Step 1: {words}"


@pytest.mark.parametrize("mark", [{"last_step_correct": False}, {"last_step_redundant": True}])
def test_wrong_and_redundant_steps_are_only_in_the_history(mark, screens, write):
    record = net(CLICK, CLICK, DONE)
    record["traj"][1]["value"] |= mark
    left_out, *rows = converted("computer_use", write("net.jsonl", [record]), prompt="{history_lines}")
    assert left_out == Empty("2024_a, step 2", "the data mark it as wrong or redundant")
    assert [row["id"] for row in rows] == ["2024_a/1", "2024_a/3"]
    assert question_of(rows[1]) == "<image>Step 1: Do 1\nStep 2: Do 2"
    assert rows[0]["episode"]["steps"] == 2


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (net(CLICK, "pyautogui.click(x=300, y=2)"), "step 2: 'pyautogui.click(x=300, y=2)' has no point in fractions"),
        (net(CLICK, traj=[{"image": "0.png", "value": {}}]), "step 1: it must have image, and value with code"),
        (net(CLICK, traj=None), "it must have task_id and traj"),
        (net(), "the episode 2024_a has no step"),
        (
            net(CLICK, traj=[{"image": "0.png", "value": {"code": CLICK, "last_step_correct": "no"}}]),
            "step 1: last_step_correct is 'no'; expected true or false",
        ),
        (net(CLICK, instruction=""), "it has no text in instruction or natural_language_task or actual_task"),
    ],
)
def test_broken_episodes_of_agentnet_are_told(record, reason, screens, write):
    source = write("net.jsonl", [net(CLICK), record])
    _, refused = converted("computer_use", source)
    assert refused.where == f"{source}:2"
    assert reason in refused.reason


def atlas(actions: str, history: str = "None", **changes) -> dict:
    question = f"\nYou are a model.\nScreenshot: <image>\nTask: Sign up\nHistory: \n{history}\n"
    answer = f"thoughts:\nclick the button\nactions:\n{actions}"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": 3, "image": "0.png", "conversations": turns} | changes


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ("CLICK <point>[[500,250]]</point>", [at("left_click", 200, 50)]),
        ("DOUBLECLICK <point>[[500, 250]]</point>", [at("double_click", 200, 50)]),
        ("RIGHTCLICK <point>[[500,250]]</point>", [at("right_click", 200, 50)]),
        ("MOVETO <point>[[500,250]]</point>", [at("mouse_move", 200, 50)]),
        ("TYPE [a [b] c]", [{"action": "type", "text": "a [b] c"}]),
        ("SCROLL [DOWN]", [{"action": "scroll", "pixels": -5}]),
        ("SCROLL [UP]", [{"action": "scroll", "pixels": 5}]),
        ("SCROLL [RIGHT]", [{"action": "hscroll", "pixels": 5}]),
        ("HOTKEY [CTRL_A]", [{"action": "key", "keys": ["ctrl", "a"]}]),
        ("PRESS_PGDN", [{"action": "key", "keys": ["pagedown"]}]),
        ("ENTER", [{"action": "key", "keys": ["enter"]}]),
        ("WAIT", [{"action": "wait", "time": 2}]),
        ("COMPLETE", [{"action": "terminate", "status": "success"}]),
        (
            "CLICK <point>[[500,250]]</point>\nENTER",
            [at("left_click", 200, 50), {"action": "key", "keys": ["enter"]}],
        ),
    ],
)
def test_os_atlas(actions, expected, screens, write):
    record = atlas(actions, "Step 1: open it\nStep 2: wait")
    (row,) = converted("computer_use", write("a.jsonl", [record]), "action_call", prompt="{query}|{history_lines}")
    assert calls_of(row) == expected
    assert question_of(row) == "<image>Sign up|Step 1: open it\nStep 2: wait"
    assert row["messages"][1]["content"] == "Action: click the button"
    assert (row["id"], "episode" in row) == ("3", False)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (atlas("PRESS_HOME"), "the action 'PRESS_HOME' is none of a computer"),
        (atlas("LONG_PRESS <point>[[1,2]]</point>"), "is none of a computer"),
        (atlas("CLICK <point>[[1]]</point>"), "is none of a computer"),
        (atlas("CLICK <point>[[2000,2]]</point>"), "the point [800, 0.4] is not inside its screenshot"),
        (atlas("SCROLL [AWAY]"), "the action 'SCROLL [AWAY]' is none of a computer"),
        (atlas("ENTER", conversations=[]), "it must have an image, and conversations"),
        (atlas("ENTER", conversations=[{"value": "Hi"}, {"value": "actions:\nENTER"}]), "has no 'Task:'"),
        (atlas("ENTER") | {"conversations": [atlas("")["conversations"][0], {"value": "Hi"}]}, "has no 'actions:'"),
    ],
)
def test_broken_rows_of_os_atlas_are_told(record, reason, screens, write):
    source = write("a.jsonl", [atlas("ENTER"), record])
    _, refused = converted("computer_use", source)
    assert refused.where == f"{source}:2"
    assert reason in refused.reason


V2 = {"img_filename": "0.png", "bbox": [100, 50, 40, 20], "instruction": "close this window", "data_type": "icon"}
PRO = {"img_filename": "0.png", "bbox": [200, 100, 280, 140], "instruction": "close this window", "id": "pro_1"}
PRO |= {"img_size": [800, 400], "ui_type": "icon"}


@pytest.mark.parametrize(("record", "key"), [(V2, "v.json, record 1"), (PRO, "pro_1")])
def test_screenspot(record, key, screens, write, tmp_path):
    """The size that ScreenSpot-Pro tells here is twice that of the file."""
    (row,) = converted("computer_use", write("v.json", [record]), "click", prompt="{query}")
    assert calls_of(row) == [at("left_click", 120, 60)]
    assert row["targets"] == [[100, 50, 140, 70]]
    assert (question_of(row), row["id"]) == ("<image>close this window", key)


def test_all_files_of_a_folder_are_read(screens, write, tmp_path):
    write("annotations/b.json", [PRO | {"id": "b"}]), write("annotations/a.json", [PRO | {"id": "a"}])
    rows = converted("computer_use", tmp_path / "annotations", "click", media=tmp_path)
    assert [row["id"] for row in rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (V2 | {"bbox": [100, 50, 40]}, "bbox is [100, 50, 40]; expected four numbers"),
        (V2 | {"bbox": [390, 50, 40, 20]}, "the box [390, 50, 430, 70] is not inside its image of 400×200 pixels"),
        (V2 | {"bbox": [100, 50, 0, 20]}, "has no area"),
        (V2 | {"instruction": " "}, "it has no text in instruction"),
        (V2 | {"img_filename": 3}, "it has no text in img_filename"),
    ],
)
def test_broken_records_of_screenspot_are_told(record, reason, screens, write):
    source = write("v.json", [V2, record])
    _, refused = converted("computer_use", source, "click")
    assert refused.where == f"{source}, record 2"
    assert reason in refused.reason
    (no_size,) = converted("computer_use", write("p.json", [PRO | {"img_size": [0, 0]}]), "click")
    assert "img_size is [0, 0]; expected width and height" in no_size.reason


def test_each_source_has_its_forms(screens, write):
    with pytest.raises(UserError, match=r"ScreenSpot has single clicks; set convert.form=click"):
        converted("computer_use", write("v.json", [V2]))
    for name, record in (("AgentNet", net(CLICK)), ("OS-Atlas", atlas("ENTER"))):
        with pytest.raises(UserError, match=f"is for ScreenSpot; {name} has the forms call, action_call"):
            converted("computer_use", write("x.jsonl", [record]), "click")


def test_the_question_is_that_of_osworlds_agent():
    """mm_agents/qwen3vl_agent.py."""
    config = compose(["+task=computer_use", "source=a", "to=b.jsonl"], load_verb("convert")).config
    for form in ("call", "action_call", "thought_action_call"):
        assert config.convert.prompts_of(form) == (
            "<image>\nPlease generate the next move according to the UI screenshot, instruction and previous actions.\n"
            "\nInstruction: {query}\n\nPrevious actions:\n{history_lines}",
        )
    assert config.convert.prompts_of("click") == ("<image>{query}",)
    assert (config.convert.system_of("click"), config.convert.system_of("call")) == ("", "")


@pytest.mark.parametrize(
    ("family", "resized", "units"),
    [
        ("qwen2_vl", (196, 392), (1000, 1000)),
        ("qwen2_5_vl", (196, 392), (392, 196)),
        ("qwen3_vl", (192, 416), (1000, 1000)),
        ("qwen3_5", (192, 416), (1000, 1000)),
    ],
)
def test_points_come_back_from_the_answers_of_each_generation(family, resized, units, screens, write, tmp_path):
    """From code to a row, the answer of a generation, pixels of the screenshot, and code again. An answer has whole
    units, half of one of which is at most 0.0026 of the screen."""
    (row,) = converted("computer_use", write("net.jsonl", [net("pyautogui.click(x=0.3417, y=0.871)")]))
    sample = sample_of(row, tmp_path)
    (call,) = with_written_tools(sample, FAMILIES[family], [((SIZE[1], SIZE[0]), resized)]).turns[-1].calls
    assert json.loads(call.arguments)["coordinate"] == [round(0.3417 * units[0]), round(0.871 * units[1])]
    answer = f'<tool_call>\n{{"name": "{call.name}", "arguments": {call.arguments}}}\n</tool_call>'
    question = Question(family=FAMILIES[family], picture=Picture((SIZE[1], SIZE[0]), resized))
    (given,) = calls_in(answer)
    x, y = given.point("coordinate", question)
    pixels = {"action": given.type, "coordinate": [x * SIZE[0], y * SIZE[1]]}
    (again,) = actions_in(code_of([pixels], SIZE), SIZE)
    found = again["coordinate"]["point_2d"]
    assert [found[0] / SIZE[0], found[1] / SIZE[1]] == pytest.approx([0.3417, 0.871], abs=0.0027)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_the_right_answer_to_screenspot_scores_in_every_generation(family, screens, write, tmp_path):
    (row,) = converted("computer_use", write("v.json", [V2]), "click")
    sample = sample_of(row, tmp_path)
    picture = Picture((SIZE[1], SIZE[0]), (196, 392))
    (call,) = with_written_tools(sample, FAMILIES[family], [picture]).turns[-1].calls
    answer = f'<tool_call>\n{{"name": "{call.name}", "arguments": {call.arguments}}}\n</tool_call>'
    question = Question(family=FAMILIES[family], picture=picture, targets=sample.targets)
    for metric in ("screenspot", "agent_action"):
        assert {part.value for part in load_metric(metric).score(answer, answer, question).values()} == {1.0}
