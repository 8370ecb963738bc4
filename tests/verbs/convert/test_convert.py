"""`qwenvl-train convert`: what it writes, prints and refuses."""

import base64
import json
import sys

import pytest
from PIL import Image

from qwenvl_train.cli import main
from tests.commands import read_lines

CSV = "image,label,aliases\na.png,cat,kitty\nmissing.png,dog,\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("a.png")
    (tmp_path / "rows.csv").write_text("image,label,aliases\na.png,cat,kitty\n")
    return tmp_path


def convert(*settings: str) -> int:
    return main(["convert", "+task=recognition", "source=rows.csv", "to=out/rows.jsonl", *settings])


def test_rows_name_images_from_their_folder_and_can_be_inspected(here, capfd):
    (here / "out").mkdir()
    Image.new("RGB", (64, 64)).save("out/b.png")
    (here / "rows.csv").write_text("image,label\na.png,cat\nout/b.png,dog\n")
    assert convert() == 0
    assert "rows      out/rows.jsonl  2" in capfd.readouterr().out
    outside, inside = read_lines(here / "out/rows.jsonl")
    assert (outside["images"], inside["images"]) == ([str(here / "a.png")], ["b.png"])
    assert outside["messages"][0]["content"] == "<image>What is in the image? Answer with its name."
    assert main(["inspect", "data.train=out/rows.jsonl", "output=json"]) == 0


def test_records_that_give_no_row_end_it_or_are_listed(here, capfd):
    (here / "rows.csv").write_text(CSV)
    assert convert() == 2
    said = capfd.readouterr().err
    assert "there is no file" in said
    assert "missing.png; convert.media names the folder of the images and videos. data.on_error=skip" in said
    assert not (here / "out/rows.jsonl").exists()
    assert convert("data.on_error=skip", "output=json") == 0
    printed = json.loads(capfd.readouterr().out)
    assert (printed["format"], printed["rows"], printed["skipped"]) == ("table", 1, 1)
    (skipped,) = read_lines(here / "out/rows.skipped.jsonl")
    assert skipped["where"] == "the row rows.csv:3"
    words = ["convert", "+task=recognition", "source=rows.csv", "to=out/more.jsonl", "data.on_error=skip"]
    assert main([*words, "data.max_skipped=0"]) == 2
    assert "1 records cannot be used, more than data.max_skipped=0" in capfd.readouterr().err


def test_records_without_anything_to_answer_are_counted(here, capfd):
    images = [{"id": number, "file_name": "a.png"} for number in (1, 2)]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}]
    found = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (here / "coco.json").write_text(json.dumps(found))
    words = ["convert", "+task=grounding", "source=coco.json"]
    assert main([*words, "to=out/rows.jsonl"]) == 0
    assert "no row    1 record, the first: coco.json, image 2: it has no objects" in capfd.readouterr().out
    (here / "coco.json").write_text(json.dumps(found | {"annotations": []}))
    assert main([*words, "to=out/more.jsonl"]) == 2
    assert (
        "There is no row to write; the first record: coco.json, image 1: it has no objects." in capfd.readouterr().err
    )
    images[0]["file_name"] = "b.png"
    (here / "coco.json").write_text(json.dumps(found))
    assert main([*words, "to=out/more.jsonl"]) == 2
    said = capfd.readouterr().err
    assert f"coco.json, image 1: there is no file {here / 'b.png'}; convert.media names the folder" in said


def test_labels_of_no_class_are_told(here, capfd):
    (here / "names.yaml").write_text("{cat: [Katze, tabby], dgo: Hund}")
    words = ["convert", "+task=recognition", "source=rows.csv", "convert.labels=names.yaml"]
    (here / "rows.csv").write_text("image,label\na.png,cat\n")
    assert main([*words, "to=rows_1.jsonl"]) == 0
    assert "labels    1 of 2 names in names.yaml are of no class of the rows, the first: dgo" in capfd.readouterr().out
    assert main([*words, "to=rows_2.jsonl", "output=json"]) == 0
    assert json.loads(capfd.readouterr().out)["unused_labels"] == ["dgo"]
    (here / "names.yaml").write_text("{cat: [Katze, tabby]}")
    assert main([*words, "to=rows_3.jsonl"]) == 0
    assert "labels" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["to=null"], "to is not set; name the .jsonl file of the rows"),
        (["to=out"], "to=out: rows are written to a .jsonl file, such as out.jsonl"),
        (["to=out.json"], "to=out.json: rows are written to a .jsonl file, such as out.jsonl"),
        (["source=wrong.json"], "wrong.json cannot be read as JSON: Expecting property name"),
        (["source=wrong.jsonl"], "wrong.jsonl:1 is not valid JSON: Expecting property name"),
        (["source=list.yaml"], "With convert.format=… you are told what it lacks of one of them"),
        (["convert.task=null", "convert.function=my.b", "convert.allow_code=true"], "in the folders of PYTHONPATH"),
        (["source=null"], "source is not set"),
        (["source=no.csv"], "source=no.csv: there is no such file or folder"),
        (["to=rows.jsonl"], "to=rows.jsonl exists already"),
        (["convert.form=box"], "convert.form=box: recognition has the forms name"),
        (["convert.media=none"], "convert.media=none: there is no such folder"),
        (["convert.labels=none.yaml"], "convert.labels=none.yaml cannot be read as YAML"),
        (["convert.without=[open]"], "convert.without has no effect on recognition"),
        (["convert.labels=list.yaml"], "convert.labels=list.yaml must map names of classes"),
        (["convert.labels=wrong.yaml"], "convert.labels=wrong.yaml: cat is 3; give a name or a list of names"),
        (["convert.task=cars"], "convert.task=cars: there is no such task; it is one of recognition, documents, "),
        (["convert.task=null"], "no task is named; add +task=…"),
        (["convert.without=[tap]"], "convert.without=tap: there is no such action; they are key, click, long_press,"),
        (["convert.prompts=null"], "convert.prompts has no question for the form name"),
        (["convert.function=a.b"], "convert.function=a.b imports and runs your own code; set convert.allow_code=true"),
        (["eval.metrics=[exact_macht]"], "eval.metrics: there is no metric exact_macht; did you mean exact_match?"),
        (["convert.allow_code=true"], "convert.allow_code=true has no effect without convert.function"),
    ],
)
def test_what_is_wrong_is_told(settings, words, here, capfd):
    (here / "rows.jsonl").touch()
    (here / "list.yaml").write_text("[a]")
    (here / "wrong.yaml").write_text("cat: 3")
    for name in ("wrong.json", "wrong.jsonl"):
        (here / name).write_text("{cat: 3}")
    named = {setting.partition("=")[0] for setting in settings}
    rest = [one for one in ("source=rows.csv", "to=out/rows.jsonl") if one.partition("=")[0] not in named]
    assert main(["convert", "+task=recognition", *rest, *settings]) == 2
    assert words in capfd.readouterr().err


@pytest.mark.parametrize(
    ("task", "record", "setting"),
    [
        ("grounding", {"image": "0.png", "expression": "cat", "bbox": [1, 2, 3, 4]}, "labels=names.yaml"),
        ("computer_use", {"img_filename": "0.png", "instruction": "cat", "bbox": [1, 2, 3, 4]}, "without=[wait]"),
    ],
)
def test_settings_that_a_format_does_not_use_are_told(task, record, setting, here, capfd):
    (here / "names.yaml").write_text("cat: dog")
    (here / "rows.jsonl").write_text(json.dumps(record))
    words = ["convert", f"+task={task}", "source=rows.jsonl", "to=out/rows.jsonl", f"convert.{setting}"]
    if task == "computer_use":
        words.append("convert.form=click")
    assert main(words) == 2
    assert f"convert.{setting.partition('=')[0]} has no effect on {task} with convert.format=" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("task", "setting", "words"),
    [
        ("grounding", "prompts={bokses: [hello]}", "convert.prompts.bokses: grounding has the forms boxes, points, "),
        ("mobile_agent", "system={calls: hello}", "convert.system.calls: mobile_agent has the forms call, action_call"),
    ],
)
def test_forms_that_do_not_exist_are_told(task, setting, words, here, capfd):
    (here / "rows.jsonl").write_text(json.dumps({"image": "0.png", "expression": "cat", "bbox": [1, 2, 3, 4]}))
    format = {"grounding": "refcoco", "mobile_agent": "amex"}[task]
    settings = [f"+task={task}", "source=rows.jsonl", "to=out/rows.jsonl", f"convert.format={format}"]
    assert main(["convert", *settings, f"convert.{setting}"]) == 2
    assert words in capfd.readouterr().err


def test_steps_of_an_agent(here, capfd):
    """The form sets the system turn, and a step without row stays in the history."""
    steps = [
        {"image_path": "a.png", "action": one, "action_description": f"I {one}."} for one in ("WAIT", "PRESS_HOME")
    ]
    (here / "amex.json").write_text(json.dumps({"episode_id": "e", "instruction": "Go home", "steps": steps}))
    words = ["convert", "+task=mobile_agent", "source=amex.json", "convert.form=action_call", "convert.without=[wait]"]
    assert main([*words, "to=out/rows.jsonl"]) == 0
    (row,) = read_lines(here / "out/rows.jsonl")
    assert row["messages"][0]["content"][0]["text"].endswith("current device): Step 1: I WAIT.; .\n")
    assert row["messages"][1]["content"] == "Action: I PRESS_HOME."
    said = capfd.readouterr().out
    assert "no row    1 record, the first: e, step 1: convert.without has wait\n" in said
    assert "qwenvl-train inspect +task=mobile_agent model=tiny_qwen3_vl data.train=out/rows.jsonl output=html\n" in said
    assert "1) Action: a short imperative describing what to do in the UI.\n" in row["system"]
    assert main(["inspect", "data.train=out/rows.jsonl", "output=json"]) == 0


def test_two_episodes_of_one_id_are_told(here, capfd):
    steps = [{"image_path": "a.png", "action": "PRESS_HOME"}]
    (here / "amex.json").write_text(json.dumps(2 * [{"episode_id": "e", "instruction": "Go home", "steps": steps}]))
    words = ["convert", "+task=mobile_agent", "source=amex.json", "convert.form=call"]
    assert main([*words, "to=rows.jsonl"]) == 2
    assert "the row e/1: two episodes have the id e." in capfd.readouterr().err
    assert main([*words, "to=rows.jsonl", "data.on_error=skip"]) == 0
    assert len(read_lines(here / "rows.jsonl")) == 1


def test_actions_that_a_generation_lacks_are_counted(here, capfd):
    Image.new("RGB", (200, 400)).save("b.png")
    actions = [{"action_type": "open_app", "app_name": "X"}, {"action_type": "wait"}]
    episode = {"episode_id": 7, "goal": "Go", "screenshot_path": ["b.png"] * 3, "step_instructions": ["Open", "Wait"]}
    episode |= {"actions": [json.dumps(one) for one in actions]}
    episode |= {"screenshot_widths": [200] * 3, "screenshot_heights": [400] * 3}
    (here / "control.jsonl").write_text(json.dumps(episode) + "\n")
    words = ["convert", "+task=mobile_agent", "source=control.jsonl"]
    assert main([*words, "to=one.jsonl"]) == 0
    lacking = ["Qwen2-VL", "Qwen3-VL", "Qwen3.5"]
    remedy = "'convert.without=[open]' leaves such steps out"
    told = f"unlisted  open in 1 row: not in mobile_use of {', '.join(lacking)}; {remedy}\n"
    assert told in capfd.readouterr().out
    assert main([*words, "to=two.jsonl", "output=json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)["unlisted"]
    assert found == {"tool": "mobile_use", "action": "open", "rows": 1, "generations": lacking}
    assert main([*words, "to=three.jsonl", "convert.without=[wait]"]) == 0
    assert "'convert.without=[wait,open]' leaves such steps out\n" in capfd.readouterr().out
    assert main([*words, "to=four.jsonl", "convert.without=[open]"]) == 0
    assert "unlisted" not in capfd.readouterr().out


def test_ones_own_converter(here, monkeypatch, capfd):
    (here / "mine.py").write_text(
        "from pathlib import Path\n"
        "def convert(source, options):\n"
        "    for number, word in enumerate(Path(source).read_text().split()):\n"
        "        question = options.prompts.ask(word)\n"
        "        turns = [{'role': 'user', 'content': '<image>' + question}, {'role': 'assistant', 'content': word}]\n"
        "        yield {'id': word, 'messages': turns, 'images': [str(Path('a.png').absolute())]}\n"
    )
    monkeypatch.syspath_prepend(str(here))
    (here / "words.txt").write_text("one two")
    (here / "mine.yaml").write_text(
        "convert: {function: mine.convert, prompts: ['Which word?']}\neval: {metrics: [exact_match]}\n"
    )
    words = ["convert", "+task=./mine.yaml", "source=words.txt", "to=rows.jsonl"]
    assert main(words) == 2
    assert "set convert.allow_code=true" in capfd.readouterr().err
    assert main([*words, "convert.allow_code=true"]) == 0
    assert [row["messages"][1]["content"] for row in read_lines(here / "rows.jsonl")] == ["one", "two"]


def test_ones_own_steps_of_episodes_need_no_id(here, monkeypatch, capfd):
    (here / "agents.py").write_text(
        "def convert(source, options):\n"
        "    turns = [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]\n"
        "    for steps in (2, 3, 2, 2):\n"
        "        yield {'messages': turns, 'episode': {'id': 'e', 'steps': steps}}\n"
        "    yield {'messages': turns, 'episode': None}\n"
    )
    monkeypatch.syspath_prepend(str(here))
    words = ["convert", "convert.function=agents.convert", "convert.allow_code=true", "source=rows.csv", "to=own.jsonl"]
    assert main(words) == 2
    assert "two episodes have the id e" in capfd.readouterr().err
    (here / "names.yaml").write_text("{cat: Katze}")
    assert main([*words, "data.on_error=skip", "convert.labels=names.yaml"]) == 0
    assert [row["episode"] and row["episode"]["steps"] for row in read_lines(here / "own.jsonl")] == [2, 2, None]
    assert "labels" not in capfd.readouterr().out  # the function may have read them itself


OWN = """
def convert(source, options):
    yield {kind}
"""


@pytest.mark.parametrize(
    ("yielded", "words"),
    [
        ("3", "the row 1: 3 is no row; a converter yields objects"),
        (
            r"turns('\ud800')",
            "the row a: it cannot be written as JSON: 'utf-8' codec can't encode",
        ),
        ("turns('b') | {'x': float('nan')}", "the row a: "),
        ("{}['name']", "convert.function=own.convert failed: KeyError: 'name' ("),
        ("turns(options.prompts.ask('a'))", "convert.prompts has no question, and this converter asks one; set it"),
    ],
)
def test_what_is_wrong_with_a_row_of_ones_own_is_told(yielded, words, here, monkeypatch, capfd):
    text = "def turns(said):\n    return {'id': 'a', 'messages': [{'role': 'user', 'content': said}, "
    text += "{'role': 'assistant', 'content': 'b'}]}\n" + OWN.replace("{kind}", yielded)
    (here / "own.py").write_text(text)
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    own = ["convert", "convert.function=own.convert", "convert.allow_code=true", "source=rows.csv", "to=own.jsonl"]
    assert main(own) == 2
    assert words in capfd.readouterr().err


def test_images_of_ones_own_rows_may_be_one_text_or_inside_the_row(here, monkeypatch):
    inside = "data:image/png;base64," + base64.b64encode((here / "a.png").read_bytes()).decode()
    row = {"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "b"}]}
    rows = [row | {"images": [inside]}, row | {"images": "a.png"}]
    (here / "rows_own.py").write_text(f"def convert(source, options):\n    yield from {rows!r}\n")
    monkeypatch.syspath_prepend(str(here))
    own = ["convert", "convert.function=rows_own.convert", "convert.allow_code=true", "source=rows.csv", "to=own.jsonl"]
    assert main(own) == 0
    assert [line["images"] for line in read_lines(here / "own.jsonl")] == [[inside], "a.png"]
