"""The simulated phone and desktop, and the loop in which a model does tasks on them."""

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.evaluation.metrics.tool_calls import first_call
from qwenvl_train.families import FAMILIES
from qwenvl_train.tasks.converter import Prompts, RowOptions
from qwenvl_train.verbs.table import load_verb

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
DEVICES = ("phone", "desktop")
SEEDS = range(300)


@pytest.fixture
def act(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import act

    return act


@pytest.mark.parametrize("name", DEVICES)
def test_the_goal_can_be_reached(name, act):
    device_class, _ = act.DEVICES[name]
    kinds = set()
    for seed in SEEDS:
        device = device_class(random.Random(seed))
        actions = []
        while (action := device.next_action())["action"] != "terminate":
            assert not device.is_reached()
            device.act(action)
            actions.append(action["action"])
        assert device.is_reached()
        assert len(actions) < act.MOST_STEPS - 1
        kinds |= set(actions)
    expected = {"click", "swipe", "type", "system_button"}
    assert kinds == (expected if name == "phone" else {"double_click", "left_click", "scroll"})


@pytest.mark.parametrize("name", DEVICES)
def test_what_can_be_clicked_on_is_drawn(name, act):
    """Each box holds ink, and other states have other screens."""
    device_class, _ = act.DEVICES[name]
    for seed in range(20):
        device = device_class(random.Random(seed))
        while True:
            image, boxes = device.draw()
            for box in boxes.values():
                assert {colour for _, colour in image.crop(box).getcolors()} != {(255, 255, 255)}
            if device.is_reached():
                break
            before = image.tobytes()
            device.act(device.next_action())
            assert device.draw()[0].tobytes() != before


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(
    "action",
    [
        {"action": "click", "coordinate": [1, 158]},
        {"action": "double_click", "coordinate": [159, 95]},
        {"action": "click", "coordinate": [-5, 1e9]},
        {"action": "click"},
        {"action": "swipe", "coordinate": [1], "coordinate2": []},
        {"action": "type", "text": "tea"},
        {"action": "scroll", "pixels": "down"},
        {"action": "dance"},
    ],
    ids=str,
)
def test_other_actions_change_nothing(name, action, act):
    device_class, _ = act.DEVICES[name]
    device = next(one for one in (device_class(random.Random(seed)) for seed in SEEDS) if one.open is None)
    before = device.draw()[0].tobytes()
    device.act(action)
    assert device.draw()[0].tobytes() == before


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("generation", ["qwen2_5_vl", "qwen3_vl"])
def test_a_model_that_does_the_right_thing_is_done(name, generation, act, monkeypatch):
    """Its points are in the units of its generation."""
    device_class, task = act.DEVICES[name]
    family = FAMILIES[generation]
    attempts = [act.Attempt(number, device_class(random.Random(number))) for number in range(12)]
    asked = []

    def decode(rendered, most_tokens):
        going = [one for one in attempts if not one.ended][: act.AT_ONCE]
        return [SimpleNamespace(text=_written(one.device, family)) for one in going]

    def render(sample):
        asked.append(sample)
        return sample

    model = SimpleNamespace(decode=decode, renderer=SimpleNamespace(render=render), family=family)
    convert = compose([f"+task={task}", "source=a", "to=b.jsonl"], load_verb("convert")).config.convert
    act.run(attempts, model, RowOptions(Prompts(convert.prompts_of("call")), "call"), device_class.tool)
    assert {one.ended for one in attempts} == {"done"}
    assert all(sample.turns[-1].role == "user" for sample in asked)
    words = ["".join(getattr(part, "text", "") for part in sample.turns[-1].parts) for sample in asked]
    assert any("Step 1: " in text for text in words)


def _written(device, family) -> str:
    """Return the call of the next action as a model of the family writes it."""
    width, height = device.size
    sides = (1000, 1000) if family.coordinates != "resized" else (width, height)
    arguments = {
        key: [value * side / own for value, side, own in zip(point, sides, device.size, strict=True)]
        if isinstance(point, list)
        else point
        for key, point in device.next_action().items()
    }
    return f"<tool_call>\n{json.dumps({'name': device.tool, 'arguments': arguments})}\n</tool_call>"


@pytest.mark.parametrize(
    ("said", "ended"),
    [
        ("I do not know.", "no call"),
        ('<tool_call>{"name": "mobile_use", "arguments": {"action": "terminate"}}</tool_call>', "ended too early"),
    ],
)
def test_how_a_task_ends_otherwise(said, ended, act):
    attempt = act.Attempt(0, act.Phone(random.Random(0)))
    attempt.take(first_call(said), attempt.device.size, FAMILIES["qwen3_vl"])
    assert attempt.ended == ended


def test_a_task_ends_after_some_steps(act):
    attempt = act.Attempt(0, act.Phone(random.Random(0)))
    odd = '<tool_call>{"name": "mobile_use", "arguments": {"action": "key", "pixels": 1}}</tool_call>'
    for _ in range(act.MOST_STEPS):
        assert not attempt.ended
        attempt.take(first_call(odd), attempt.device.size, FAMILIES["qwen3_vl"])
    assert attempt.ended == "too many steps"
    assert attempt.done == ["Key"] * act.MOST_STEPS


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
@pytest.mark.parametrize("name", DEVICES)
def test_chromium_shows_the_same_screens(name, act):
    device = act.DEVICES[name][0](random.Random(0))
    with act._screens(by_browser=True) as screen:
        for _ in range(4):
            drawn, _ = device.draw()
            shown = screen(device)
            assert shown.size == drawn.size
            # Its curves and letters are smoother: 2.9 of 255 is the largest mean difference measured.
            assert np.abs(np.asarray(shown, float) - np.asarray(drawn, float)).mean() < 4
            device.act(device.next_action())


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_chromium_draws_each_shape_and_text(act):
    """As much ink at the same place, for each alone."""
    from samples.canvas import SvgCanvas, browser
    from samples.drawing import Shape, blank, write

    drawings = [Shape(f"blue {shape}", 24, 24, 14).draw for shape in ("circle", "square", "triangle", "ring", "cross")]
    drawings += [lambda canvas, text=text: write(canvas, text, (6, 12)) for text in ("cake", "OK", "soap")]
    with browser() as screen:
        for draw in drawings:
            canvas, (image, pillow) = SvgCanvas((48, 48)), blank((48, 48))
            draw(canvas)
            draw(pillow)
            ink = [255 - np.asarray(one, float).mean(-1) for one in (screen(canvas.page, (48, 48)), image)]
            # Measured: 0.882 of the ink of a triangle, and corners of the box of a word that are 2 pixels away.
            assert 0.85 < ink[0].sum() / ink[1].sum() < 1.15
            boxes = [(found.min(0), found.max(0)) for found in (np.argwhere(one > 60) for one in ink)]
            assert np.abs(np.subtract(*boxes)).max() <= 2
