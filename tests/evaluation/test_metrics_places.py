"""The metrics of boxes, points, spans of time and actions, beside published examples."""

import json
from itertools import permutations

import numpy as np
import pytest

from qwenvl_train.evaluation.metrics.matching import best_matches
from qwenvl_train.evaluation.metrics.metric import Picture, Question
from qwenvl_train.evaluation.metrics.places import box_iou, places_in
from qwenvl_train.evaluation.metrics.spans import overlap, spans_in
from qwenvl_train.families.qwen2_5_vl import FAMILY as QWEN2_5_VL
from qwenvl_train.families.qwen2_vl import FAMILY as QWEN2_VL
from qwenvl_train.families.qwen3_vl import FAMILY as QWEN3_VL
from qwenvl_train.families.tools import XML_TOOLS
from tests.evaluation.metric_scores import of_source, score

BOXES = [(0, 0, 100, 100), (0, 0, 50, 50), (200, 200, 300, 300)]
LARGE = [
    (285.3538, 185.5758, 1193.5110, 851.4551),
    (285.1472, 188.7374, 1192.4984, 851.0669),
    (279.2440, 197.9812, 1189.4746, 849.2019),
]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        (BOXES, [[1.0, 0.25, 0.0], [0.25, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        (LARGE, [[1.0, 0.9933, 0.9673], [0.9933, 1.0, 0.9737], [0.9673, 0.9737, 1.0]]),
    ],
)
def test_iou_is_that_of_torchvisions_tests(boxes, expected):
    """TestBoxIou of test_ops.py. On 90,000 random pairs, torchvision.ops.box_iou gave the same in float64."""
    for one, row in zip(boxes, expected, strict=True):
        assert [box_iou(one, other) for other in boxes] == pytest.approx(row, abs=1e-4)


def test_an_empty_box_has_no_iou():
    assert box_iou((5, 5, 5, 5), (5, 5, 5, 5)) == 0


def test_the_matching_has_the_largest_sum():
    """Taking the best pair first would give 0.9 + 0.1. On 300 random tables, munkres 3.0 gave the same sums to
    1e-15."""
    table = [[0.9, 0.8], [0.8, 0.1]]
    assert best_matches([0, 1], [0, 1], lambda one, other: table[one][other]) == [0.8, 0.8]
    assert best_matches([0, 1], [0], lambda one, other: table[one][other]) == [0.9]
    assert best_matches([0], [0, 1], lambda one, other: table[one][other]) == [0.9]
    assert best_matches([], [0], lambda one, other: 1.0) == best_matches([0], [], lambda one, other: 1.0) == []


def test_no_other_matching_has_a_larger_sum():
    for seed in range(30):
        table = np.random.default_rng(seed).random((4, 5))
        largest = max(sum(table[range(4), columns]) for columns in permutations(range(5), 4))
        assert sum(best_matches(range(4), range(5), lambda one, other, of=table: of[one, other])) == pytest.approx(
            largest
        )


def boxes(*found: tuple[str, list[int]]) -> str:
    return json.dumps([{"bbox_2d": box, "label": label} for label, box in found], ensure_ascii=False)


def points(*found: tuple[str, list[int]]) -> str:
    return json.dumps([{"point_2d": point, "label": label} for label, point in found])


CAT, DOG = [100, 100, 300, 300], [500, 500, 700, 900]


@pytest.mark.parametrize(
    ("answer", "expected", "scores"),
    [
        (boxes(("猫", CAT)), boxes(("猫", CAT)), {"f1@0.5": 1, "iou": 1}),
        # Half of the width: the intersection over union is a third.
        (boxes(("cat", [200, 100, 400, 300])), boxes(("cat", CAT)), {"f1@0.5": 0, "iou": 1 / 3}),
        # RefCOCO's labels do not count: there is one box on either side.
        (boxes(("a cat", CAT)), boxes(("the left one", CAT)), {"f1@0.5": 1, "iou": 1}),
        (boxes(("dog", CAT), ("cat", DOG)), boxes(("cat", CAT), ("dog", DOG)), {"f1@0.5": 0, "iou": 0}),
        (boxes(("Dog", DOG), ("Cat", CAT)), boxes(("cat", CAT), ("dog", DOG)), {"f1@0.5": 1, "iou": 1}),
        (boxes(("cat", CAT)), boxes(("cat", CAT), ("dog", DOG)), {"f1@0.5": 2 / 3, "iou": 1 / 2}),
        (boxes(("cat", CAT), ("cat", CAT)), boxes(("cat", CAT)), {"f1@0.5": 2 / 3, "iou": 1 / 2}),
        ("", boxes(("cat", CAT)), {"f1@0.5": 0, "iou": 0}),
        (boxes(("cat", CAT)), "There is none.", {"f1@0.5": 0}),
        ("None.", "There is none.", {"f1@0.5": 1}),
        (boxes(("cat", [300, 300, 100, 100])), boxes(("cat", CAT)), {"f1@0.5": 1, "iou": 1}),
        (f"It is at {CAT}.", boxes(("cat", CAT)), {"f1@0.5": 1, "iou": 1}),
        ("<|box_start|>(100,100),(300,300)<|box_end|>", boxes(("cat", CAT)), {"f1@0.5": 1, "iou": 1}),
        # ScreenSpot: the point of the answer is in the box.
        (points(("cat", [300, 100])), boxes(("cat", CAT)), {"f1@0.5": 1, "point_in_box": 1}),
        (points(("cat", [301, 100])), boxes(("cat", CAT)), {"f1@0.5": 0, "point_in_box": 0}),
        (boxes(("cat", CAT)), points(("cat", [200, 200])), {"f1@0.5": 1, "point_in_box": 1}),
        (points(("a", [200, 239])), points(("a", [200, 200])), {"f1@0.5": 1}),
        (points(("a", [200, 241])), points(("a", [200, 200])), {"f1@0.5": 0}),
    ],
)
def test_grounding(answer, expected, scores):
    for family in (None, QWEN3_VL, QWEN2_VL):
        found = score("grounding", answer, expected, family=family)
        assert {name: found[name] for name in found if name not in ("count", "valid_json")} == pytest.approx(scores)


TWO = boxes(("cat", CAT), ("dog", DOG))


@pytest.mark.parametrize(
    ("answer", "f1", "count", "valid"),
    [
        (f"```json\n{TWO}\n```", 1, 1, 1),
        (TWO[:-1], 1, 1, 0),
        (TWO[:-12], 1, 1, 0),
        (TWO.replace('"', "'"), 1, 1, 0),
        (TWO.replace("}, {", "} {"), 1, 1, 0),
        (TWO[:-40], 2 / 3, 0, 0),
        ("[]", 0, 0, 1),
        ("None", 0, 0, 0),
    ],
    ids=["whole", "no bracket", "cut label", "single quotes", "no comma", "cut box", "empty", "text"],
)
def test_broken_lists_are_read_as_far_as_they_go(answer, f1, count, valid):
    found = score("grounding", answer, TWO)
    assert (found["f1@0.5"], found["count"], found["valid_json"]) == pytest.approx((f1, count, valid))


def test_json_is_only_asked_of_answers_that_should_be_json():
    assert "valid_json" not in score("grounding", "[1, 2, 3, 4]", "[1, 2, 3, 4]")
    assert "count" not in score("grounding", TWO, "There is none.")


def test_a_label_is_that_of_its_object():
    """A label before the numbers, in another key, with quotes, brackets or a line break in it."""
    text = json.dumps(
        [
            {"label": "a {cat}", "bbox_2d": CAT},
            {"bbox_2d": DOG, "text_content": 'He said "no"\n<'},
            {"bbox_2d": CAT},
            {"label": "x", "point_2d": [1, 2]},
        ]
    )
    assert [place.label for place in places_in(text, Question())] == ["a {cat}", 'He said "no"\n<', "", "x"]
    ((line,),) = [
        places_in("<|object_ref_start|>a<b\n<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", Question())
    ]
    assert line.label == "a<b\n"


def test_a_click_is_a_point():
    click = '<tool_call>\n{"name": "computer_use", "arguments": {"action": "left_click", "coordinate": [200, 150]}}\n'
    assert score("grounding", click, boxes(("button", CAT)))["point_in_box"] == 1


def test_numbers_are_in_the_units_of_the_family():
    """A picture of 1000 × 500 pixels that is resized to 280 × 140."""
    picture = Picture(original=(500, 1000), resized=(140, 280))
    (resized,) = places_in("[28, 14, 140, 70]", Question(family=QWEN2_5_VL, picture=picture))
    (relative,) = places_in("[100, 100, 500, 500]", Question(family=QWEN3_VL, picture=picture))
    assert resized.coordinates == pytest.approx((0.1, 0.1, 0.5, 0.5))
    assert relative.coordinates == pytest.approx((0.1, 0.1, 0.5, 0.5))


@pytest.mark.parametrize(
    ("answered", "iou"),
    [
        ((10, 20), 1),
        ((5, 6), 0),
        ((9, 10), 0),
        ((25, 26), 0),
        ((20, 22), 0),
        ((5, 15), 1 / 3),
        ((15, 17.5), 0.25),
        ((17.5, 20), 0.25),
        ((15, 25), 1 / 3),
    ],
)
def test_temporal_iou_is_that_of_fadscorers_tests(answered, iou):
    """github.com/usnistgov/FadScorer, tests/test_iou_func.py, against the span from 10 to 20 seconds."""
    assert overlap((10, 20), answered) == pytest.approx(iou)
    found = score("temporal", f"{answered[0]} - {answered[1]}", "10 - 20")
    recalls = {f"r1@{least}": float(iou >= least) for least in (0.3, 0.5, 0.7)}
    assert found == pytest.approx({"iou": iou, **recalls})


def test_temporal_figures_are_means():
    pairs = [("10 - 20", "10 - 20"), ("From 5 to 15 seconds", "10 - 20"), ("I do not see it.", "10 - 20")]
    assert of_source("temporal", pairs) == pytest.approx(
        {"iou": 4 / 9, "r1@0.3": 2 / 3, "r1@0.5": 1 / 3, "r1@0.7": 1 / 3}
    )


def test_more_guesses_do_not_help():
    assert score("temporal", "0 - 1, 10 - 20", "10 - 20")["iou"] == 0
    assert score("temporal", "10 - 20", "10 - 20, 30 - 40")["iou"] == 0.5
    assert score("temporal", "30 - 40 and 10 - 20", "10 - 20, 30 - 40")["iou"] == 1


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("12.5 - 17.3", [(12.5, 17.3)]),
        ("00:12.50 - 00:17.30", [(12.5, 17.3)]),
        ('[{"time": "01:00.00 - 01:02.50", "event": "a dog"}]', [(60, 62.5)]),
        ("1:02:03 – 1:02:09", [(3723, 3729)]),
        ("from 12.5 to 17.3 seconds", [(12.5, 17.3)]),
        ("between 3s and 5s.", [(3, 5)]),
        ("[3, 5]", [(3, 5)]),
        ('{"start": 12.5, "end": "17.3s"}', [(12.5, 17.3)]),
        ('[{"start_time": "00:03", "end_time": "00:05"}, {"start_time": 7, "end_time": 9}]', [(3, 5), (7, 9)]),
        # Qwen's cookbook: spans are the keys, also if the answer is cut. Numbers in the words do not count.
        ('{"00:01.00 - 00:02.50": "adds 2 to 3 eggs", "01:00.00 - 01:30.00": "stirs', [(1, 2.5)]),
        ('```json\n{"00:01.00 - 00:02.50": "adds 2 to 3 eggs"}\n```', [(1, 2.5)]),
        ('[{"start": "00:01.00", "end": "00:02.50"}, {"start": "00:0', [(1, 2.5)]),
        ("0.8 - 19.9 seconds, adds 2 to 3 eggs\n20 - 30 seconds: stirs 5 - 6 times", [(0.8, 19.9), (20, 30)]),
        ("72.0 - 82.0 seconds, 84.0 - 94.0 seconds", [(72, 82), (84, 94)]),
        ("17.3 - 12.5", []),
        ("1.2.3 - 4", []),
        ('{"start": "soon", "end": 3}', []),
        ("", []),
    ],
)
def test_spans(text, spans):
    assert spans_in(text) == spans


SCREEN = Picture(original=(2400, 1080), resized=(2408, 1092))


def call(action: str, **arguments) -> str:
    content = {"name": "mobile_use", "arguments": {"action": action, **arguments}}
    return f"Thought: 我要点击\nAction: do it\n<tool_call>\n{json.dumps(content)}\n</tool_call>"


def in_xml(written: str) -> str:
    """The same call in the notation since Qwen3.5."""
    content = json.loads(written.split("<tool_call>")[1].removesuffix("</tool_call>"))
    return f"<think>\nA\n</think>\n\n{XML_TOOLS.call(content['name'], json.dumps(content['arguments']), 'here')}"


CLICK = call("click", coordinate=[500, 500])
SEARCH = '{"name": "search", "arguments": {"query": "dogs"}}'
SWIPE = call("swipe", coordinate=[500, 800], coordinate2=[510, 200])


@pytest.mark.parametrize(
    ("answer", "expected", "type", "step"),
    [
        (call("click", coordinate=[640, 500]), CLICK, 1, 1),  # 0.14 of the screen
        (call("click", coordinate=[641, 500]), CLICK, 1, 0),
        (call("click", coordinate=[598, 599]), CLICK, 1, 1),
        (call("click", coordinate=[600, 600]), CLICK, 1, 0),
        (call("long_press", coordinate=[500, 500], time=2), CLICK, 0, 0),
        (call("long_press", coordinate=[500, 500], time=2), call("long_press", coordinate=[500, 500], time=1), 1, 1),
        (call("swipe", coordinate=[100, 900], coordinate2=[200, 100]), SWIPE, 1, 1),
        (call("swipe", coordinate=[500, 200], coordinate2=[510, 800]), SWIPE, 1, 0),
        (call("swipe", coordinate=[500, 200]), SWIPE, 1, 0),
        (call("type", text="pizza near me"), call("type", text="Pizza "), 1, 1),
        (call("type", text="pizza"), call("type", text="pasta"), 1, 0),
        (call("system_button", button="HOME"), call("system_button", button="Home"), 1, 1),
        (call("system_button", button="Back"), call("system_button", button="Home"), 1, 0),
        (call("wait", time=2), call("wait", time=5), 1, 1),
        (call("terminate", status="success"), call("terminate", status="success"), 1, 1),
    ],
)
def test_agent_action_is_agentcpm_guis_evaluator(answer, expected, type, step):
    """github.com/OpenBMB/AgentCPM-GUI, eval/utils/evaluator.py, which follows Qwen's own. On 3,995 random steps of six
    actions, with boxes or without, its type_match and exact_match were those of ours in all."""
    found = score("agent_action", answer, expected, family=QWEN3_VL, picture=SCREEN)
    assert (found["type"], found["step"]) == (type, step)
    if "<tool_call>" in answer and "<tool_call>" in expected:
        assert score("agent_action", in_xml(answer), in_xml(expected), family=QWEN3_VL, picture=SCREEN) == found


@pytest.mark.parametrize(
    ("answer", "expected", "step"),
    [
        # Unlike there: an empty text is not in every text, and how a task ended counts.
        (call("type", text=""), call("type", text="pizza"), 0),
        (call("terminate", status="failure"), call("terminate", status="success"), 0),
        (call("scroll", pixels=-300), call("scroll", pixels=-100), 1),
        (call("scroll", pixels=300), call("scroll", pixels=-100), 0),
        (call("key", keys=["Ctrl", "C"]), call("key", keys=["ctrl", "c"]), 1),
        (SEARCH.replace("}}", ', "page": 1}}'), SEARCH, 1),
        (SEARCH, json.dumps({"name": "search", "arguments": '{"query": "Dogs"}'}), 1),
        (SEARCH.replace("dogs", "cats"), SEARCH, 0),
        ("I would click.", CLICK, 0),
        (CLICK[: CLICK.index("coordinate")], CLICK, 0),
        ("Done.", "All is done.", 1),
        (CLICK, "All is done.", 0),
    ],
)
def test_other_actions(answer, expected, step):
    assert score("agent_action", answer, expected, family=QWEN3_VL, picture=SCREEN)["step"] == step


def test_parts_of_an_action_count_where_it_has_them():
    assert score("agent_action", CLICK, CLICK) == {"step": 1, "type": 1, "point": 1}
    assert score("agent_action", SWIPE, CLICK) == {"step": 0, "type": 0, "point": 0}
    assert score("agent_action", SWIPE, SWIPE) == {"step": 1, "type": 1, "direction": 1}
    assert score("agent_action", "", call("type", text="a")) == {"step": 0, "type": 0, "text": 0}


@pytest.mark.parametrize(("x", "step"), [(859, 1), (861, 0)])
def test_a_point_in_the_element_is_right_however_far_away(x, step):
    """An element from 200 to 800 thousandths, and a tenth of its width on both sides."""
    answer = call("click", coordinate=[x, 500])
    question = {"family": QWEN3_VL, "picture": SCREEN, "targets": ((216, 960, 864, 1440),)}
    assert score("agent_action", answer, call("click", coordinate=[250, 500]), **question)["step"] == step


def test_pixels_of_the_resized_picture_are_fractions_of_it():
    """With Qwen2.5-VL, 152 pixels are 0.139 of the width of 1092, and 154 are 0.141."""
    expected = call("click", coordinate=[500, 1200])
    for x, step in ((652, 1), (654, 0)):
        answer = call("click", coordinate=[x, 1200])
        assert score("agent_action", answer, expected, family=QWEN2_5_VL, picture=SCREEN)["step"] == step
