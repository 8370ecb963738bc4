"""SROIE, CORD and our records, written by hand after their published descriptions."""

import json
import math
from pathlib import Path

import pytest

from qwenvl_train.evaluation.metrics.metric import Picture
from qwenvl_train.families.qwen2_5_vl import FAMILY as QWEN2_5_VL
from qwenvl_train.families.qwen2_vl import FAMILY as QWEN2_VL
from qwenvl_train.families.qwen3_vl import FAMILY as QWEN3_VL
from qwenvl_train.tasks.converter import Empty, Refused
from tests.evaluation.metric_scores import score
from tests.tasks.conftest import answer_of, converted, question_of, written

BOX = '10,20,110,20,110,40,10,40,TAN WOON YANN\n\n10,50,60,40,70,50,20,60,3, JALAN "A"\n0,0,9,0,9,9,0,9,###\n'
ENTITIES = {"company": "TAN WOON YANN", "total": "9.00"}
FORMAT = "<image>Fields: {format}".replace("{format}", '{"company": "", "total": ""}')


@pytest.fixture
def sroie(draw, write, tmp_path):
    draw("sroie/img/a.jpg"), draw("sroie/img/none.jpg")
    write("sroie/box/a.txt", BOX)
    write("sroie/entities/a.txt", ENTITIES)
    return tmp_path / "sroie"


def test_lines_as_text(sroie):
    (row,) = converted("ocr", sroie)
    assert (row["id"], answer_of(row), row["metric"]) == (
        "img/a.jpg", 'TAN WOON YANN\n3, JALAN "A"', ["lines_cer"],
    )  # fmt: skip


def test_spotting_is_as_in_the_cookbook(sroie):
    (row,) = converted("ocr", sroie, "spotting")
    text = """```json
[
\t{"bbox_2d": [50, 200, 550, 400], "text_content": "TAN WOON YANN"},
\t{"bbox_2d": [50, 400, 350, 600], "text_content": "3, JALAN \\"A\\""}
]
```"""
    assert written(row, QWEN3_VL) == written(row, QWEN2_VL) == text
    pixels = written(row, QWEN2_5_VL)
    assert '"bbox_2d": [6, 11, 62, 22]' in pixels
    picture = Picture(original=(100, 200), resized=(56, 112))
    for family, answer in ((QWEN2_5_VL, pixels), (QWEN3_VL, text)):
        found = score("layout", answer, answer, family=family, picture=picture)
        assert found == {"f1@0.5": 1, "boxes_f1@0.5": 1}
    assert score("lines_cer", text, 'TAN WOON YANN\n3, JALAN "A"') == {"lines_cer": 0}


def test_boxes_are_in_the_notation_of_grounding(sroie):
    (row,) = converted("ocr", sroie, "boxes")
    assert written(row, QWEN2_VL).startswith("<|object_ref_start|>TAN WOON YANN<|object_ref_end|><|box_start|>(50,200)")
    assert '{"bbox_2d": [50, 400, 350, 600], "label": "3, JALAN \\"A\\""}' in written(row, QWEN3_VL)


@pytest.mark.parametrize("name", ["entities/a.txt", "img/a.json", "entities/a.json"])
def test_fields(name, sroie, write):
    (sroie / "entities/a.txt").unlink()
    write(f"sroie/{name}", ENTITIES)
    (row,) = converted("ocr", sroie, "fields", prompt="Fields: {format}")
    assert question_of(row) == FORMAT
    assert json.loads(answer_of(row).removeprefix("```json\n").removesuffix("\n```")) == ENTITIES
    assert row["metric"] == ["fields"]


@pytest.mark.parametrize(
    ("file", "content", "form", "reason"),
    [
        ("box/a.txt", "1,2,3,4,a\n", "text", "line 1 of a.txt is '1,2,3,4,a'; expected x1,y1,x2,y2,x3,y3,x4,y4,text"),
        ("box/a.txt", "1,2,3,4,5,6,7,8, \n", "text", "expected x1,y1"),
        (
            "box/a.txt",
            "1,2,300,2,300,9,1,9,a\n",
            "text",
            "line 1 of a.txt: the box [1, 2, 300, 9] is not inside",
        ),
        ("box/a.txt", "\n", "text", "it has no lines, which the form text needs"),
        ("entities/a.txt", "{", "fields", "a.txt is not valid JSON"),
        ("entities/a.txt", "[]", "fields", "a.txt has no object with key information"),
        ("entities/a.txt", "{}", "fields", "it has no fields, which the form fields needs"),
    ],
)
def test_broken_files_are_told(file, content, form, reason, sroie, write):
    write(f"sroie/{file}", content)
    (refused,) = converted("ocr", sroie, form)
    assert refused.where == str(sroie / "img/a.jpg")
    assert reason in refused.reason


def test_names_of_images_can_have_dots(sroie, draw, write):
    draw("sroie/img/r.1.png")
    write("sroie/entities/r.txt", {"total": "of another image"})
    _, empty = converted("ocr", sroie, "fields")
    assert empty == Empty(str(sroie / "entities/r.txt"), "there is no image r for it")
    write("sroie/entities/r.1.txt", ENTITIES)
    _, row, _ = converted("ocr", sroie, "fields")
    assert "TAN WOON YANN" in answer_of(row)


def test_annotations_without_their_image_are_told(sroie, write):
    write("sroie/box/b.txt", BOX)
    write("sroie/entities/b.txt", ENTITIES)
    write("sroie/img/README.txt", "Receipts")
    write("sroie/img/labels.json", {"images": []})
    write("sroie/img/b.txt", BOX)
    for source in (sroie, sroie / "img"):
        _, *found = converted("ocr", source)
        names = [str(Path(one.where).relative_to(sroie)) for one in found]
        assert names == ["img/b.txt", "box/b.txt", "entities/b.txt"]


def test_json_beside_images_is_told_where_others_have_it(sroie, write):
    write("sroie/img/a.json", ENTITIES)
    write("sroie/img/c.json", ENTITIES)
    (sroie / "img/d.json").mkdir()
    write("sroie/img/a.txt", BOX)  # box/a.txt is not read then, and is of an image all the same
    _, *found = converted("ocr", sroie)
    assert [one.where for one in found] == [str(sroie / "img/c.json")]


def test_fields_beside_an_image_can_be_in_a_txt_file(draw, write, tmp_path):
    draw("receipts/a.jpg")
    write("receipts/a.txt", ENTITIES)
    (row,) = converted("ocr", tmp_path / "receipts", "fields")
    assert json.loads(answer_of(row).removeprefix("```json\n").removesuffix("\n```")) == ENTITIES
    (refused,) = converted("ocr", tmp_path / "receipts", "text")
    assert refused.reason == "it has no lines, which the form text needs"


def test_a_file_in_another_encoding_is_told(sroie):
    (sroie / "box/a.txt").write_bytes("1,2,3,2,3,4,1,4,5 €".encode("cp1252"))
    (refused,) = converted("ocr", sroie)
    assert "a.txt is not in UTF-8" in refused.reason


def word(text: str, left: int) -> dict:
    corners = (left, 10, left + 10, 12, left + 9, 20, left, 18)
    return {"quad": dict(zip(("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"), corners, strict=True)), "text": text}


PARSED = {
    "menu": [{"nm": "KOPI", "cnt": "1 x"}, {"nm": "MILO", "price": "9"}],
    "total": {"total_price": "19"},
    "a": ["b"],
}
TRUTH = {"gt_parse": PARSED, "valid_line": [{"words": [word("KOPI", 10), word("O", 30)], "category": "menu.nm"}]}


def test_cord(draw, write):
    draw("a.png")
    source = write("metadata.jsonl", [{"file_name": "a.png", "ground_truth": json.dumps(TRUTH)}])
    (row,) = converted("ocr", source, "spotting")
    assert row["objects"] == {"ref": ["KOPI O"], "bbox": [[10, 10, 40, 20]], "separator": ", "}
    (row,) = converted("ocr", source, "fields", prompt="{format}")
    shape = {"menu": [{"nm": "", "cnt": "", "price": ""}], "total": {"total_price": ""}, "a": []}
    assert json.loads(question_of(row).removeprefix("<image>")) == shape
    assert score("fields", answer_of(row), json.dumps(PARSED))["all_right"] == 1
    assert converted("ocr", source.parent, "fields", prompt="{format}") == [row]


@pytest.mark.parametrize(
    ("record", "form", "reason"),
    [
        ({"ground_truth": "{}"}, "fields", "it has no file_name"),
        ({"file_name": "a.png", "ground_truth": "{"}, "fields", "its ground_truth is not valid JSON"),
        ({"file_name": "a.png", "ground_truth": "[]"}, "fields", "its ground_truth is no object"),
        ({"file_name": "a.png", "ground_truth": {"gt_parse": []}}, "fields", "it has no fields"),
        ({"file_name": "a.png", "ground_truth": {"gt_parse": "a"}}, "fields", "its gt_parse is no object"),
        ({"file_name": "a.png", "ground_truth": {"gt_parse": {"a": math.nan}}}, "fields", "its fields are nested"),
        ({"file_name": "a.png", "ground_truth": '{"gt_parse": ' + '{"a":' * 600 + "1" + "}" * 601}, "fields", "nested"),
        ({"file_name": "a.png", "ground_truth": {"valid_line": {"a": 1}}}, "text", "its valid_line is no list"),
        (
            {"file_name": "a.png", "ground_truth": {"valid_line": [{"words": [{"text": "a"}]}]}},
            "text",
            "valid_line 1 needs words",
        ),
    ],
)
def test_broken_records_of_cord_are_told(record, form, reason, draw, write):
    draw("a.png")
    source = write("metadata.jsonl", [record])
    (refused,) = converted("ocr", source, form, format="cord")
    assert refused.where == f"{source}:1"
    assert reason in refused.reason


def test_our_records(draw, write):
    """Lines in any script, with an upright box, or rotated with four corners."""
    draw("a.png")
    lines = [
        {"text": "出口", "box": [10, 10, 40, 30]},
        {"text": "مخرج", "quad": [[50, 10], [80, 20], [75, 40], [45, 30]]},
        {"text": "Выход", "quad": [100, 10, 120, 10, 120, 90, 100, 90]},
    ]
    source = write("lines.jsonl", [{"id": 7, "image": "a.png", "lines": lines}])
    (row,) = converted("ocr", source, "spotting")
    assert row["id"] == "7"
    assert row["objects"]["bbox"] == [[10, 10, 40, 30], [45, 10, 80, 40], [100, 10, 120, 90]]
    assert '"text_content": "出口"' in answer_of(row)
    (row,) = converted("ocr", write("text.json", [{"image": "a.png", "lines": ["One", {"text": "two"}]}]))
    assert answer_of(row) == "One\ntwo"
    (row,) = converted("ocr", write("fields.json", [{"image": "a.png", "fields": {"n": 0}}]), "fields")
    assert answer_of(row) == '```json\n{\n  "n": 0\n}\n```'


@pytest.mark.parametrize(
    ("record", "form", "reason"),
    [
        ({"image": 3, "lines": ["a"]}, "text", "it names no image"),
        ({"image": "a.png", "lines": {}, "fields": []}, "text", "it has no lines"),
        ({"image": "a.png", "lines": "a"}, "text", "lines must be a list, and fields an object"),
        ({"image": "a.png", "lines": [" "]}, "text", "line 1 has no text"),
        ({"image": "a.png", "lines": ["a"]}, "boxes", "a line has no box, which the form boxes needs"),
        (
            {"image": "a.png", "lines": [{"text": "a", "bbox": []}]},
            "text",
            "line 1 has bbox; a line has text,",
        ),
        (
            {"image": "a.png", "lines": [{"text": "a", "box": [1, 2]}]},
            "text",
            "line 1: box has four numbers",
        ),
        (
            {"image": "a.png", "lines": [{"text": "a", "box": [1, 2, 1, 4]}]},
            "text",
            "the box [1, 2, 1, 4] has no area",
        ),
    ],
)
def test_broken_records_are_told(record, form, reason, draw, write):
    draw("a.png")
    (refused,) = converted("ocr", write("lines.jsonl", [record]), form, format="records")
    assert isinstance(refused, Refused)
    assert reason in refused.reason
