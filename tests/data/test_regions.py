"""Boxes and points in each family's notation are exact under resizing, and can be parsed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenvl_train.data.render.regions import in_words, to_convention, to_pixels
from qwenvl_train.data.sample import Coordinates, Listing, Reference, Region
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES

SIZES = [((480, 640), (448, 644)), ((100, 200), (112, 196))]
CAT = Region((64, 48, 320, 240), "cat", 0)
NOSE = Region((100, 50), 'the "nose"', 1)
OLD, MIDDLE, NEW = FAMILIES["qwen2_vl"], FAMILIES["qwen2_5_vl"], FAMILIES["qwen3_vl"]


@pytest.mark.parametrize(
    ("family", "part", "expected"),
    [
        (OLD, Coordinates(CAT), "<|box_start|>(100,100),(500,500)<|box_end|>"),
        (MIDDLE, Coordinates(CAT), "[64, 45, 322, 224]"),
        (NEW, Coordinates(CAT), "[100, 100, 500, 500]"),
        (OLD, Coordinates(NOSE), "<|box_start|>(500,500)<|box_end|>"),
        (MIDDLE, Coordinates(NOSE), "[98, 56]"),
        (NEW, Coordinates(NOSE), "[500, 500]"),
        (OLD, Reference("cat"), "<|object_ref_start|>cat<|object_ref_end|>"),
        (MIDDLE, Reference("cat"), "cat"),
        (
            OLD,
            Listing((CAT, CAT)),
            "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>" * 2,
        ),
    ],
)
def test_parts_in_the_words_of_the_family(family, part, expected):
    assert in_words(part, family, SIZES, "row") == expected


@pytest.mark.parametrize("family", [MIDDLE, NEW])
def test_a_listing_is_the_json_that_the_models_answer(family):
    words = in_words(Listing((CAT, NOSE)), family, SIZES, "row")
    assert words.startswith("```json\n[\n\t{")
    assert words.endswith("}\n]\n```")
    rows = json.loads(words.removeprefix("```json\n").removesuffix("\n```"))
    assert rows[0] == {"bbox_2d": to_convention(CAT.coordinates, family, *SIZES[0]), "label": "cat"}
    assert rows[1] == {"point_2d": to_convention(NOSE.coordinates, family, *SIZES[1]), "label": 'the "nose"'}


@given(
    st.sampled_from([OLD, MIDDLE, NEW]),
    st.integers(28, 4000),
    st.integers(28, 4000),
    st.integers(1, 60),
    st.integers(1, 60),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_there_and_back_is_half_a_unit_off_at_most(family, height, width, rows, columns, shares):
    original, resized = (height, width), (28 * rows, 28 * columns)
    box = [share * side for share, side in zip(shares, (width, height, width, height), strict=True)]
    again = to_pixels(to_convention(box, family, original, resized), family, original, resized)
    full = (1000, 1000) if family.coordinates == "relative" else resized
    for place, (before, after) in enumerate(zip(box, again, strict=True)):
        axis = 1 - place % 2
        assert abs(before - after) <= 0.5 * original[axis] / full[axis] + 1e-6


@pytest.mark.parametrize(
    ("region", "words"),
    [
        (Region((0, 0, 641, 10), "cat", 0), "is not inside its image of 640×480 pixels"),
        (Region((-1, 0), "", 0), "is not inside its image"),
        (Region((0, 0, 10, 10), "cat", 2), "is in image 2, counted from 0, but the row has 2 images"),
    ],
)
def test_regions_outside_are_refused(region, words):
    with pytest.raises(UserError, match=words):
        in_words(Coordinates(region), NEW, SIZES, "rows.jsonl:3 (id a)")
