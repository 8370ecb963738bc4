"""Folders of classes, and tables with labels, as people have them."""

import pytest

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Prompts, Refused
from tests.tasks.conftest import answer_of, converted, question_of


def test_a_folder_for_each_class(draw, tmp_path):
    for name in ("cls/cat/0.png", "cls/cat/deep/1.JPG", "cls/dog/0.png", "cls/.hidden/0.png"):
        draw(name)
    (tmp_path / "cls/empty").mkdir()
    (tmp_path / "cls/readme.txt").touch()
    *rows, none = converted("recognition", tmp_path / "cls", prompt="One of {classes}?")
    assert [row["id"] for row in rows] == ["cat/0.png", "cat/deep/1.JPG", "dog/0.png"]
    assert [answer_of(row) for row in rows] == ["cat", "cat", "dog"]
    assert rows[1]["images"] == [str(tmp_path / "cls/cat/deep/1.JPG")]
    assert question_of(rows[0]) == "<image>One of cat, dog, empty?"
    assert none == Refused(str(tmp_path / "cls/empty"), none.reason)
    assert "has no image" in none.reason


def test_folders_of_parts_are_no_classes(draw, tmp_path):
    for name in ("set/train/cat/0.png", "set/val/cat/1.png", "set/test/0.png"):
        draw(name)
    of_class, train, val = converted("recognition", tmp_path / "set")
    assert answer_of(of_class) == "test"
    assert train.reason == f"it is no class, but has the folders of classes; convert it with source={train.where}"
    assert val.where == str(tmp_path / "set/val")


def test_misspelt_names_in_prompts_are_told(draw, tmp_path):
    draw("cls/cat/0.png")
    with pytest.raises(UserError, match=r"convert.prompts has \{clazzes\}; did you mean \{classes\}\?"):
        converted("recognition", tmp_path / "cls", prompt="One of {clazzes}?")
    (row,) = converted("recognition", tmp_path / "cls", prompt="{classes} as {json}?")
    assert question_of(row) == "<image>cat as {json}?"


def test_other_names_of_classes(draw, tmp_path):
    draw("cls/n01440764/0.png")
    labels = {"n01440764": ["tench", "Tinca tinca"]}
    (row,) = converted("recognition", tmp_path / "cls", labels=labels, prompt="{classes}?")
    assert (answer_of(row), row["answers"], question_of(row)) == ("tench", ["Tinca tinca"], "<image>tench?")


@pytest.mark.parametrize(
    "text",
    [
        "image,label,aliases\na.png,cat,kitty|puss\nb.png,dog,\n",
        "file_name;Class;Synonyms;size\na.png;cat;kitty | puss;3\nb.png;dog;;4\n",
        "\ufeffpath\tcaption\taliases\na.png\tcat\tkitty|puss\nb.png\tdog\t\n",
    ],
    ids=["commas", "semicolons and other names", "tabs and a mark at the beginning"],
)
def test_tables(text, draw, write, tmp_path):
    draw("a.png"), draw("b.png")
    source = write("rows.csv", text)
    rows = converted("recognition", source)
    assert [answer_of(row) for row in rows] == ["cat", "dog"]
    assert [row["images"] for row in rows] == [[str(tmp_path / "a.png")], [str(tmp_path / "b.png")]]
    assert rows[0]["answers"] == ["kitty", "puss"]
    assert "answers" not in rows[1]
    assert [row["id"] for row in rows] == ["rows.csv:2", "rows.csv:3"]


def test_quoted_captions_and_images_in_another_folder(write, tmp_path):
    source = write("rows.csv", 'image,caption\n1.png,"A cat,\nasleep"\n')
    (row,) = converted("recognition", source, media=tmp_path / "images")
    assert (answer_of(row), row["images"]) == ("A cat,\nasleep", [str(tmp_path / "images/1.png")])


def test_lines_without_a_label_are_told(write):
    source = write("rows.csv", "image,label\na.png,\n,cat\nb.png,dog\n")
    no_label, no_image, row = converted("recognition", source)
    assert no_label == Refused(f"{source}:2", "its label is empty")
    assert no_image == Refused(f"{source}:3", "its image is empty")
    assert answer_of(row) == "dog"


def test_surplus_cells_are_told_and_spaces_around_values_are_left_out(write, tmp_path):
    source = write("rows.csv", "image,label,aliases\n0.png,a dog, running fast, at home\n 1.png , cat ,\n2.png,cat\n")
    refused, *rows = converted("recognition", source)
    assert refused == Refused(
        f"{source}:2", "it has 4 cells for the 3 columns; put a cell that has a separator in quotes"
    )
    assert [(answer_of(row), row["images"]) for row in rows] == [
        ("cat", [str(tmp_path / "1.png")]),
        ("cat", [str(tmp_path / "2.png")]),
    ]


def test_images_outside_the_folder_of_the_media_are_told(write, tmp_path):
    source = write("rows.csv", "image,label\n../0.png,cat\n1.png,dog\n")
    refused, _ = converted("recognition", source, media=tmp_path)
    assert refused == Refused(f"{source}:2", f"../0.png is not in convert.media={tmp_path}")


def test_what_is_no_source_is_told(write, tmp_path):
    source = write("rows.csv", "a,b\n1,2\n")
    with pytest.raises(UserError, match="no format of recognition is found there"):
        converted("recognition", source)
    with pytest.raises(UserError, match="has the columns a, b; name one of them image and one label"):
        converted("recognition", source, format="table")
    with pytest.raises(UserError, match=r"convert.format=coco: recognition has the formats table .*, folders "):
        converted("recognition", source, format="coco")


def test_half_a_character_in_an_id_chooses_a_prompt_too():
    prompts = Prompts(("a", "b"))
    assert prompts.ask("\ud800") in ("a", "b")
    assert {prompts.ask(str(number)) for number in range(20)} == {"a", "b"}
