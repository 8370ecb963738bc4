"""COCO, YOLO and RefCOCO, written by hand after their published descriptions."""

import json

import pytest

from qwenvl_train.errors import UserError
from qwenvl_train.tasks import boxes
from qwenvl_train.tasks.boxes import inside
from qwenvl_train.tasks.converter import Empty, Refused
from tests.tasks.conftest import answer_of, converted, question_of

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]


def coco(*annotations: dict, **image: object) -> dict:
    return {
        "images": [{"id": 1, "file_name": "a.png", **image}],
        "annotations": [{"id": n, "image_id": 1, **one} for n, one in enumerate(annotations, start=1)],
        "categories": CATEGORIES,
    }


CAT = {"category_id": 7, "bbox": [10, 20.25, 30, 40]}
DOG = {"category_id": 9, "bbox": [100, 5, 50, 40]}
HIGH_CAT = {"category_id": 7, "bbox": [60, 0, 20, 10]}


def objects(row) -> list:
    ((part,),) = [answer_of(row)]
    assert part["type"] == "objects"
    return part["objects"]


def test_all_objects_from_the_top_to_the_bottom(draw, write, tmp_path):
    draw("a.png")
    (row,) = converted("grounding", write("coco.json", coco(CAT, DOG, HIGH_CAT)), prompt="Find {labels}.")
    assert objects(row) == [
        {"bbox_2d": [60, 0, 80, 10], "label": "cat"},
        {"bbox_2d": [100, 5, 150, 45], "label": "dog"},
        {"bbox_2d": [10, 20.25, 40, 60.25], "label": "cat"},
    ]
    assert (question_of(row), row["id"], row["images"]) == ("<image>Find cat, dog.", "a.png", [str(tmp_path / "a.png")])


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("points", {"a.png": [[70, 5], [125, 25], [25, 40.25]]}),
        ("boxes_by_label", {"a.png/cat": [[60, 0, 80, 10], [10, 20.25, 40, 60.25]], "a.png/dog": [[100, 5, 150, 45]]}),
        ("points_by_label", {"a.png/cat": [[70, 5], [25, 40.25]], "a.png/dog": [[125, 25]]}),
    ],
)
def test_forms(form, expected, draw, write):
    draw("a.png")
    rows = converted("grounding", write("coco.json", coco(CAT, DOG, HIGH_CAT)), form, prompt="Find {label}.")
    key = "point_2d" if "points" in form else "bbox_2d"
    assert {row["id"]: [one[key] for one in objects(row)] for row in rows} == expected
    if form.endswith("by_label"):
        assert [question_of(row) for row in rows] == ["<image>Find cat.", "<image>Find dog."]


def test_crowds_are_left_out_and_images_without_objects_are_counted(draw, write):
    draw("a.png")
    found = coco(CAT, {**DOG, "iscrowd": 1}, width=200, height=100)
    found["images"].append({"id": 2, "file_name": "b.png"})
    source = write("coco.json", found)
    row, empty = converted("grounding", source)
    assert len(objects(row)) == 1
    assert empty == Empty(f"{source}, image 2", "it has no objects")


def test_pixels_beyond_the_border_are_cut_off(draw, write):
    draw("a.png")
    box = {"category_id": 7, "bbox": [-1, 10, 202, 91]}
    (row,) = converted("grounding", write("coco.json", coco(box, width=200, height=100)))
    assert objects(row)[0]["bbox_2d"] == [0, 10, 200, 100]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"category_id": 7, "bbox": [10, 10, 300, 10]}, "[10, 10, 310, 20] is not inside its image of 200×100 pixels"),
        ({"category_id": 7, "bbox": [10, 10, 0, 10]}, "[10, 10, 10, 20] has no area"),
        (
            {"category_id": 7, "bbox": [10, 10, 5]},
            "the box of annotation 1 is [10, 10, 5]; expected [x, y, width, height]",
        ),
        ({"category_id": 8, "bbox": [10, 10, 5, 5]}, "annotation 1 has the unknown category 8"),
        ({"category_id": [7], "bbox": [10, 10, 5, 5]}, "annotation 1 has the unknown category [7]"),
        ({"category_id": 7, "bbox": [10, 10, 10**400, 5]}, "expected [x, y, width, height]"),
        ({"category_id": 7, "bbox": [10, 10, float("nan"), 5]}, "the box of annotation 1 is [10, 10, nan, 5]"),
        ({"category_id": 7, "bbox": [10, 10, True, 5]}, "the box of annotation 1 is [10, 10, True, 5]"),
    ],
)
def test_a_broken_annotation_refuses_its_image(annotation, reason, draw, write):
    draw("a.png")
    source = write("coco.json", coco(annotation, DOG, width=200, height=100))
    (refused,) = converted("grounding", source)
    assert isinstance(refused, Refused)
    assert refused.where == f"{source}, image 1"
    assert reason in refused.reason


@pytest.mark.parametrize(
    ("told", "box"),
    [
        ((200, 100), [10, 20.25, 40, 60.25]),
        ((400, 200), [5, 10.12, 20, 30.12]),
        ((399, 200), [5.01, 10.12, 20.05, 30.12]),
    ],
)
def test_boxes_are_those_of_the_file_of_the_image(told, box, draw, write):
    draw("a.png")
    (row,) = converted("grounding", write("coco.json", coco(CAT, width=told[0], height=told[1])))
    assert objects(row)[0]["bbox_2d"] == box


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ((100, 200), "its file has 200×100 pixels, not the 100×200 of the source"),
        ((640, 480), "its file has 200×100 pixels, not the 640×480 of the source"),
        ((0, 100), "its size is 0×100 pixels; expected width and height"),
        ((200, None), "its size is (200, None); expected width and height"),
    ],
)
def test_an_image_of_another_shape_is_told(told, reason, draw, write):
    draw("a.png")
    (refused,) = converted("grounding", write("coco.json", coco(CAT, width=told[0], height=told[1])))
    assert refused.reason == reason


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        (name, entry)
        for name in ("images", "annotations", "categories")
        for entry in (None, 5, [], {}, {"id": [], "image_id": []})
    ],
)
def test_entries_of_coco_that_are_none_are_told(name, entry, draw, write):
    draw("a.png")
    found = coco(CAT)
    found[name] = [entry, *found[name]]
    source = write("coco.json", found)
    refused, row = converted("grounding", source)
    assert refused.where == f"{source}, {name}, entry 1"
    assert "it is no object with a number or text as its " in refused.reason
    assert len(objects(row)) == 1


def test_numbers_too_big_for_a_box_are_told():
    with pytest.raises(UserError, match=r"the box is .*; expected four numbers"):
        inside((0, 0, 10**400, 5), (200, 100), "the box")


def test_fractions_of_the_image_are_no_pixels():
    with pytest.raises(UserError, match=r"the box \[0.1, 0.2, 0.3, 1\] is inside the first pixel; expected pixels"):
        inside((0.1, 0.2, 0.3, 1), (200, 100), "the box")
    assert inside((0.1, 0.2, 0.3, 1.5), (200, 100), "the box") == (0.1, 0.2, 0.3, 1.5)


def test_annotations_of_an_unknown_image_are_told(draw, write):
    draw("a.png")
    found = coco(CAT, width=200, height=100)
    found["annotations"].append({"id": 5, "image_id": 3, **DOG})
    _, refused = converted("grounding", write("coco.json", found))
    assert "annotations name it, but it is not in the list of images" in refused.reason


@pytest.mark.parametrize("names", ["names: [cat, dog]\n", "names:\n  0: cat\n  1: dog\n"])
@pytest.mark.parametrize("apart", [False, True])
def test_yolo(names, apart, draw, write, tmp_path):
    draw("set/images/a.png"), draw("set/images/none.png")
    write(f"set/{'labels' if apart else 'images'}/a.txt", "1 0.625 0.25 0.25 0.4\n0 0.1 0.5 0.2 0.5\n")
    write("set/data.yaml", names)
    (row,) = converted("grounding", tmp_path / "set")
    assert objects(row) == [
        {"bbox_2d": [100, 5, 150, 45], "label": "dog"},
        {"bbox_2d": [0, 25, 40, 75], "label": "cat"},
    ]
    assert row["id"] == "images/a.png"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5", "line 1 is '0 0.5 0.5'; expected class, x, y, width, height"),
        ("cat 0.5 0.5 0.1 0.1", "expected class, x, y, width, height"),
        ("0 0.5 nan 0.1 0.1", "expected class, x, y, width, height"),
        ("0 0.5 0.5 1e999 0.1", "expected class, x, y, width, height"),
        ("0 0.4 0.4 0.6 0.4 0.6 0.6 0.4", "or a class and the points of a polygon"),
        ("2 0.5 0.5 0.1 0.1", "line 1 has the class 2, which has no name"),
        ("0 0.9 0.5 0.5 0.1", "is not inside its image"),
    ],
)
def test_broken_lines_of_yolo_are_told(line, reason, draw, write, tmp_path):
    draw("set/a.png"), write("set/a.txt", line), write("set/classes.txt", "cat\ndog\n")
    (refused,) = converted("grounding", tmp_path / "set")
    assert refused.where == str(tmp_path / "set/a.txt")
    assert reason in refused.reason


def test_empty_files_of_yolo_are_counted(draw, write, tmp_path):
    draw("set/a.png"), write("set/a.txt", " \n"), write("set/classes.txt", "cat\n")
    assert converted("grounding", tmp_path / "set") == [Empty(str(tmp_path / "set/a.txt"), "it has no boxes")]


def test_polygons_and_confidences_of_yolo(draw, write, tmp_path):
    draw("set/a.png"), write("set/classes.txt", "cat\ndog\n")
    write("set/a.txt", "0 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6\n1 0.1 0.9 0.2 0.8 0.15 1\n1 0.625 0.25 0.25 0.4 0.93\n")
    (row,) = converted("grounding", tmp_path / "set")
    assert objects(row) == [
        {"bbox_2d": [100, 5, 150, 45], "label": "dog"},
        {"bbox_2d": [80, 40, 120, 60], "label": "cat"},
        {"bbox_2d": [20, 80, 40, 100], "label": "dog"},
    ]


@pytest.mark.parametrize("source", ["images/set", "images/set/images", "images/set/images/train"])
def test_only_the_last_folder_of_images_becomes_labels(source, draw, write, tmp_path):
    draw("images/set/images/train/a.png"), write("images/set/classes.txt", "cat\n")
    write("images/set/labels/train/a.txt", "0 0.5 0.5 0.5 0.5\n")
    (row,) = converted("grounding", tmp_path / source)
    assert objects(row) == [{"bbox_2d": [50, 25, 150, 75], "label": "cat"}]


def test_files_of_yolo_that_cannot_be_read_are_told(draw, write, tmp_path):
    for name in "ab":
        draw(f"set/{name}.png"), write(f"set/{name}.txt", "0 0.5 0.5 0.5 0.5\n")
    names = write("set/classes.txt", "cat\n")
    (tmp_path / "set/a.txt").write_bytes(b"0 \xff")
    refused, row = converted("grounding", tmp_path / "set")
    assert "a.txt cannot be read: 'utf-8' codec" in refused.reason
    assert row["id"] == "b.png"
    names.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"classes.txt cannot be read"):
        converted("grounding", tmp_path / "set")
    write("set/data.yaml", "names: {a: cat}\n")
    with pytest.raises(UserError, match="one whose keys are no numbers"):
        converted("grounding", tmp_path / "set")


REF = {
    "ref_id": 12,
    "file_name": "a.png",
    "bbox": [10, 20, 30, 40],
    "sentences": [{"sent": "left cat"}, {"sent": "the cat"}],
}


@pytest.mark.parametrize("name", ["refs.json", "refs.jsonl"])
def test_refcoco(name, draw, write):
    draw("a.png")
    rows = converted("grounding", write(name, [REF]), prompt="Where is {label}?")
    assert [(row["id"], question_of(row), objects(row)) for row in rows] == [
        (f"12/{n}", f"<image>Where is {said}?", [{"bbox_2d": [10, 20, 40, 60], "label": said}])
        for n, said in enumerate(("left cat", "the cat"), start=1)
    ]


def test_an_image_of_many_references_is_opened_once(draw, write, monkeypatch):
    opened = []
    monkeypatch.setattr(boxes, "upright_size", lambda path, where: opened.append(path) or (100, 200))
    path = draw("a.png")
    assert len(converted("grounding", write("refs.jsonl", [REF, REF | {"ref_id": 13}]))) == 4
    assert opened == [str(path)]


def test_a_file_is_parsed_once(draw, write, monkeypatch):
    """Also where several formats are tried on it."""
    draw("a.png")
    parsed, parse = [], json.loads
    monkeypatch.setattr(json, "loads", lambda *given: parsed.append(given) or parse(*given))
    assert len(converted("grounding", write("coco.json", coco(CAT)))) == 1
    assert len(converted("grounding", write("refs.json", [REF]))) == 2
    assert len(parsed) == 2


def test_refcoco_with_corners_and_one_expression(draw, write):
    draw("a.png")
    record = {"image": "a.png", "expression": "left cat", "bbox_xyxy": [10, 20, 40, 60]}
    (row,) = converted("grounding", write("refs.jsonl", [record]), "points")
    assert objects(row) == [{"point_2d": [25, 40], "label": "left cat"}]
    assert row["id"] == "refs.jsonl:1/1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sentences": [{"sent": " "}]}, "it has no expression"),
        ({"sentences": [5]}, "it has no expression"),
        ({"sentences": 5}, "it has no expression"),
        ({"sentences": {"sent": [5]}}, "it has no expression"),
        ({"bbox": [1, 2, 3, 10**400]}, "expected four numbers"),
        ({"bbox": None}, "it has no box: bbox as [x, y, width, height]"),
        ({"bbox": [150, 20, 80, 10]}, "is not inside its image of 200×100 pixels"),
        ({"file_name": None}, "it names no image"),
    ],
)
def test_broken_references_are_told(changes, reason, draw, write):
    draw("a.png")
    source = write("refs.jsonl", [REF, REF | changes])
    *rows, refused = converted("grounding", source, format="refcoco")
    assert len(rows) == 2
    assert refused.where == f"{source}:2"
    assert reason in refused.reason


def test_what_is_no_source_is_told(write):
    with pytest.raises(UserError, match="no format of grounding is found there"):
        converted("grounding", write("other.json", {"a": 1}))
    with pytest.raises(UserError, match="must have the lists images, annotations, categories"):
        converted("grounding", write("other.json", {"images": []}), format="coco")
    source = write("refs.jsonl", [])
    source.write_text("{")
    with pytest.raises(UserError, match=r"refs.jsonl:1 is not valid JSON"):
        converted("grounding", source, format="refcoco")
