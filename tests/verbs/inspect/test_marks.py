"""Boxes and points: where they are drawn is where the written numbers lie."""

import pytest

from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.sample import Coordinates, Image, Listing, PublishedTool, Region, Sample, Text, ToolCall, Turn
from qwenvl_train.families import FAMILIES
from qwenvl_train.verbs.inspect.marks import marks_of

SIZE = PictureSize(original=(480, 640), resized=(476, 644), grid=(1, 34, 46), tokens=391)
OTHER = PictureSize(original=(100, 200), resized=(112, 196), grid=(1, 8, 14), tokens=28)


def sample(*parts) -> Sample:
    asked = Turn("user", (Image("a.png"), Image("b.png"), Text("Where?")), train=False)
    return Sample("a", "rows.jsonl", 1, (asked, Turn("assistant", parts, train=True)))


@pytest.mark.parametrize("region", [(0, 0, 640, 480), (13.4, 6.2, 65.9, 30.5), (100, 200), (640, 480)])
def test_a_given_region_is_drawn_at_its_place_up_to_half_a_unit(model_type, region):
    family = FAMILIES[model_type]
    parts = (Coordinates(Region(region, "cat", 0)), Text(" and "), Listing((Region((20, 30), "dot", 1),)))
    first, second = marks_of(sample(*parts), (SIZE, OTHER), family)
    full = (1000, 1000) if family.coordinates == "relative" else SIZE.resized
    for place, (value, drawn) in enumerate(zip(region, first.drawn, strict=True)):
        axis = 1 - place % 2
        half_a_unit = 0.5 * SIZE.resized[axis] / full[axis]
        assert abs(value * SIZE.resized[axis] / SIZE.original[axis] - drawn) <= half_a_unit + 1e-9
    assert (first.picture, first.label, first.given, first.inside) == (0, "cat", region, True)
    assert (second.picture, second.label, len(second.written)) == (1, "dot", 2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"bbox_2d": [40, 30, 201, 149], "label": "red"}]', [("red", (40, 30, 201, 149))]),
        ('{"point_2d":[7,8],"label":"dot"}, {"bbox_2d": [1, 2, 3.5, 4]}', [("dot", (7, 8)), ("", (1, 2, 3.5, 4))]),
        ("<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", [("cat", (1, 2, 3, 4))]),
        ("<|box_start|>(5,6)<|box_end|>", [("", (5, 6))]),
        ("a list [1, 2, 3, 4], a call f(1,2), a \"bbox_2d\" and {\"bbox_2d\": [1, 2, 3]}", []),
    ],
)  # fmt: skip
def test_numbers_that_stand_in_the_words_are_found(text, found):
    marks = list(marks_of(sample(Text(text)), (SIZE,), FAMILIES["qwen2_5_vl"]))
    assert [(mark.label, mark.written) for mark in marks] == found
    assert all(mark.given is None and mark.inside for mark in marks)
    assert all(mark.drawn == pytest.approx(mark.written) for mark in marks)


def test_words_are_read_in_the_convention_of_the_family():
    text = Text('{"bbox_2d": [500, 500, 1000, 1000], "label": "a"}')
    (mark,) = marks_of(sample(text), (SIZE,), FAMILIES["qwen3_vl"])
    assert mark.drawn == pytest.approx((322, 238, 644, 476))
    (other,) = marks_of(sample(text), (SIZE,), FAMILIES["qwen2_5_vl"])
    assert not other.inside
    assert other.description == "box a: [500, 500, 1000, 1000] as written in the row, outside the image"


def test_words_say_of_no_picture_where_there_are_two():
    text = Text('{"bbox_2d": [1, 2, 3, 4], "label": "a"}')
    assert list(marks_of(sample(text), (SIZE, OTHER), FAMILIES["qwen2_5_vl"])) == []


def calling(tools: tuple, **regions: Region) -> Sample:
    call = ToolCall("mobile_use", '{"action": "swipe", "time": 1}', tuple(regions.items()))
    return Sample("a", "rows.jsonl", 1, (Turn("assistant", (), True, calls=(call,)),), tools)


def test_the_points_of_a_call_have_its_action_and_the_units_of_its_tool():
    corner = Region((SIZE.original[1], SIZE.original[0]), "", 0)
    for tools, expected in (((), (1000, 1000)), ((PublishedTool("mobile_use"),), (999, 999))):
        (mark,) = marks_of(calling(tools, coordinate=corner), (SIZE,), FAMILIES["qwen3_vl"])
        assert (mark.label, mark.written, mark.is_arrow) == ("swipe", expected, False)
        assert mark.drawn == pytest.approx(SIZE.resized[::-1])
    (mark,) = marks_of(calling(tools, coordinate=corner), (SIZE,), FAMILIES["qwen2_5_vl"])
    assert mark.written == SIZE.resized[::-1]


def test_a_start_and_an_end_are_an_arrow():
    start, end = Region((0, 0), "", 0), Region((SIZE.original[1], SIZE.original[0]), "", 0)
    (mark,) = marks_of(calling((), coordinate=start, coordinate2=end), (SIZE,), FAMILIES["qwen3_vl"])
    assert mark.is_arrow
    assert mark.written == (0, 0, 1000, 1000)
    assert mark.description.startswith("arrow swipe: [0, 0, ")
    elsewhere = Region((0, 0), "", 1)
    marks = list(marks_of(calling((), coordinate=start, coordinate2=elsewhere), (SIZE, OTHER), FAMILIES["qwen3_vl"]))
    assert [mark.is_arrow for mark in marks] == [False, False]
