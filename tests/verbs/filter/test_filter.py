"""`qwenvl-train filter`: which rows it keeps and leaves out, and that a killed one goes on where it was."""

import json
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.curation.rules.unwanted import patterns_in
from qwenvl_train.data.samples import Samples
from qwenvl_train.verbs.filter import filtering
from tests.commands import read_lines
from tests.verbs.filter.rows import AGAIN, GOOD, falls, result, said


def test_rows_stay_byte_for_byte_and_are_left_out_with_the_evidence(write_rows, filtered, tmp_path):
    lines = [
        '{"messages":[{"role":"user","content":"Où?"},{"role":"assistant","content":"Ici \\u00e0 1.0"}],"x":1.50}',
        json.dumps(said(AGAIN, id="again", extra=[1, None])),
        "{broken",
        json.dumps(said(GOOD)),
    ]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    folder, out, _ = filtered(f"data.train={rows}")
    assert (folder / "kept.jsonl").read_text(encoding="utf-8").splitlines() == [lines[0], lines[3]]
    again, broken = read_lines(folder / "dropped.jsonl")
    assert (again["source"], again["line"], again["id"], again["row"]) == (str(rows), 2, "again", json.loads(lines[1]))
    assert [one["rule"] for one in again["dropped_by"]] == ["repeated_ngrams"]
    assert "'the bin and then" in again["dropped_by"][0]["evidence"]
    assert (broken["dropped_by"][0]["rule"], broken["row"]) == ("unusable", "{broken")
    assert "2 of 4 rows kept (50.0 %)" in out
    verdicts = pq.read_table(folder / "verdicts.parquet").to_pylist()
    assert [row["kept"] for row in verdicts] == [True, False, False, True]
    assert [row["repeated_ngrams"] for row in verdicts] == [None, True, None, None]  # the others are too short for it
    assert verdicts[1]["repeated_ngrams.value"] > 0.9
    assert "parts" not in {path.name for path in folder.iterdir()}


def test_media_are_found_from_the_new_folder(filtered, tmp_path):
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    Image.effect_noise((90, 60), 80).save(data / "images/a.png")
    with_image = said(GOOD, "<image>What is it?", images=["images/a.png"])
    absolute = said("A cat.", "<image>Who?", images=[str(data / "images/a.png")])
    rows = data / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in (with_image, absolute)))
    folder, *_ = filtered(f"data.train={rows}")
    moved, same = (folder / "kept.jsonl").read_text().splitlines()
    assert json.loads(moved) == with_image | {"images": [str(data / "images/a.png")]}
    assert same == json.dumps(absolute)
    before, after = (opened(path, tmp_path) for path in (rows, folder / "kept.jsonl"))
    assert [row.turns for row in before] == [row.turns for row in after]


def opened(path: Path, cache: Path) -> Samples:
    return Samples((SourceConfig(path=str(path)),), "data.train", False, cache)


def test_each_entry_has_a_file_and_keeps_how_its_rows_are_read(write_rows, filtered, verb, tmp_path):
    own = write_rows([{"q": f"Question {number}?", "a": GOOD} for number in range(3)], "own.jsonl")
    other = write_rows([said(GOOD), said(AGAIN)], "other.jsonl")
    entries = (
        f"[{{path: {own}, columns: {{prompt: q, answer: a}}, weight: 2, metric: [anls]}}, {{path: {other}, weight: 1}}]"
    )
    folder, *_ = filtered(f"data.train={entries}")
    written = yaml.safe_load((folder / "data.yaml").read_text())
    assert written["train"] == [
        {"path": "kept-1-own.jsonl", "format": "prompt_completion", "columns": {"prompt": "q", "answer": "a"},
         "weight": 2.0, "metric": ["anls"]},
        {"path": "kept-2-other.jsonl", "format": "messages", "weight": 1.0},
    ]  # fmt: skip
    assert (folder / "kept-1-own.jsonl").read_bytes() == own.read_bytes()
    out, _ = verb("inspect", f"data={folder / 'data.yaml'}", "inspect.samples=0")
    assert "kept-1-own.jsonl: 3 rows" in out
    assert "kept-2-other.jsonl: 1 row" in out


def test_of_rows_that_are_nearly_the_same_the_first_without_another_fault_stays(write_rows, filtered):
    text = " ".join(f"word{number}" for number in range(60))
    answers = {"cut": f"```\n{text}", "first": f"{text}.", "same": f"{text} indeed."}
    path = write_rows([said(GOOD), *(said(answer, id=id) for id, answer in answers.items())])
    settings = ("filter.duplicates.use=drop", "filter.unfinished.use=drop")
    folder, *_ = filtered("+filter=light", f"data.train={path}", *settings, "filter.duplicates.min_similarity=0.8")
    assert [row.get("id") for row in read_lines(folder / "kept.jsonl")] == [None, "first"]
    assert falls(folder) == {"unfinished": 1, "duplicates": 1}
    evidence = read_lines(folder / "dropped.jsonl")[1]["dropped_by"][0]["evidence"]
    assert f"those of {path}:3" in evidence


def test_a_marked_row_stays(write_rows, filtered):
    path = write_rows([said(AGAIN), said(GOOD)])
    folder, out, _ = filtered(f"data.train={path}", "filter.repeated_ngrams.use=mark")
    assert len(read_lines(folder / "kept.jsonl")) == 2
    assert falls(folder) == {"repeated_ngrams": 1}
    assert "(marked only)" in out


@pytest.fixture
def many(write_rows) -> Path:
    return write_rows([said(AGAIN if number % 7 == 3 else f"{GOOD} {number}", id=str(number)) for number in range(50)])


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".jsonl", ".parquet")}


def test_the_results_are_the_same_with_several_processes_and_after_a_kill(many, filtered, monkeypatch, tmp_path):
    monkeypatch.setattr(filtering, "_CHUNK", 8)
    settings = (f"data.train={many}", "filter.duplicates.use=drop")
    whole, *_ = filtered(*settings)
    # The writer keeps a description of each row group in memory.
    assert pq.ParquetFile(whole / "verdicts.parquet").num_row_groups == 1
    several, *_ = filtered(*settings, to="several", workers=2)
    assert results(several) == results(whole)
    judge, judged = filtering.judge_row, []

    def killed(samples, row, section):
        if len(judged) == 20:
            raise KeyboardInterrupt
        judged.append(row)
        return judge(samples, row, section)

    monkeypatch.setattr(filtering, "judge_row", killed)
    filtered(*settings, to="killed", code=130)
    judged.clear()
    _, out, _ = filtered(*settings, to="killed", code=130)
    assert judged[0] == 16  # two chunks of 8 rows are stored
    judged.clear()
    monkeypatch.setattr(filtering, "judge_row", lambda *call: judged.append(call[1]) or judge(*call))
    folder, out, _ = filtered(*settings, to="killed")
    assert (judged[0], len(judged)) == (32, 18)
    assert "18 rows judged in " in out
    assert "; 32 further rows from before" in out
    assert results(folder) == results(whole)


def test_a_finished_filter_tells_its_figures_again_and_other_settings_are_refused(many, filtered, monkeypatch):
    folder, first, _ = filtered(f"data.train={many}")
    monkeypatch.setattr(filtering, "judge_row", None)
    _, again, _ = filtered(f"data.train={many}")
    assert again.splitlines()[-3:] == first.splitlines()[-3:]
    _, _, err = filtered(f"data.train={many}", "filter.repeated_ngrams.max_share=0.5", code=2)
    assert f"filter.to={folder} holds results of other settings (repeated_ngrams); name another folder" in err
    many.write_text(many.read_text() + json.dumps(said(GOOD)) + "\n")
    _, _, err = filtered(f"data.train={many}", code=2)
    assert "other settings (data)" in err


def test_another_folder_is_not_overwritten(many, filtered, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    _, _, err = filtered(f"data.train={many}", code=2)
    assert "out has other files in it; name a new folder." in err


def test_a_filter_that_keeps_no_row_says_by_which_rule(write_rows, filtered):
    path = write_rows([said(AGAIN), said(AGAIN, "Why?")])
    folder, _, err = filtered(f"data.train={path}", code=2)
    assert (
        "no row is kept; 2 of 2 fall to repeated_ngrams. Raise its limits, or set filter.repeated_ngrams.use=mark"
        in err
    )
    assert len(read_lines(folder / "dropped.jsonl")) == 2


def test_json_is_one_line_with_all_figures(many, filtered):
    folder, out, _ = filtered(f"data.train={many}", "output=json")
    told = json.loads(out)
    assert told == {"folder": str(folder), **result(folder)}
    assert (told["rows"], told["kept"]) == (50, 43)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (("filter=strict", "filter.language.use=maybe"), "filter.language.use"),
        (("filter=strickt",), "did you mean filter=strict?"),
        (("filter.repeated_ngrams.max_shaer=0.1",), "did you mean filter.repeated_ngrams.max_share?"),
        (("data.streaming=true", "train.max_steps=3"), "filter reads the files row by row"),
    ],
)
def test_mistakes_are_named(many, filtered, settings, problem):
    _, _, err = filtered(f"data.train={many}", *settings, code=2)
    assert problem in err


def test_a_preset_is_for_this_verb(verb):
    _, err = verb("train", "+recipe=sft_lora", "filter=strict", code=2)
    assert "filter is a verb of its own: qwenvl-train filter +filter=strict" in err


def test_the_text_rules_need_no_torch(many, tmp_path):
    """Its import takes longer than judging thousands of rows."""
    code = (
        "import sys; from qwenvl_train.cli import main; code = main(sys.argv[1:]);"
        "print('torch' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    words = ("filter", "+filter=strict", f"data.train={many}", f"filter.to={tmp_path / 'out'}", "data.workers=0")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "False")


def test_a_worker_that_is_killed_is_named(many, filtered, monkeypatch):
    monkeypatch.setattr(filtering, "_CHUNK", 8)
    monkeypatch.setattr(filtering, "judge_row", lambda *_: signal.raise_signal(signal.SIGKILL))
    _, _, err = filtered(f"data.train={many}", workers=2, code=2)
    assert "A worker that judges rows was killed" in err


def test_files_of_two_formats_in_one_entry_stay_apart(tmp_path, filtered, verb):
    folder = tmp_path / "data"
    folder.mkdir()
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": GOOD}]
    (folder / "a.jsonl").write_text("".join(json.dumps(said(f"{GOOD} {number}")) + "\n" for number in range(3)))
    (folder / "b.jsonl").write_text("".join(json.dumps({"conversations": turns, "n": n}) + "\n" for n in range(2)))
    out, *_ = filtered(f"data.train={folder}")
    entries = yaml.safe_load((out / "data.yaml").read_text())["train"]
    assert [(entry["path"], entry["format"]) for entry in entries] == [
        ("kept-1-data.jsonl", "llava"), ("kept-2-data.jsonl", "messages"),
    ]  # fmt: skip
    told, _ = verb("inspect", f"data={out / 'data.yaml'}", "inspect.samples=0")
    assert "kept-1-data.jsonl: 2 rows, llava" in told
    assert "kept-2-data.jsonl: 3 rows, messages" in told


CALL = {"type": "function", "function": {"name": "click", "arguments": '{"x": 1}'}}


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"content": "It is 5."}, {"content": "It is 5."}, True),
        ({"content": "It is 3 + 2."}, {"content": "It is 3 - 2."}, False),
        ({"content": "It is so."}, {"content": "it is so"}, False),
        ({"content": "Done.", "tool_calls": [CALL]}, {"content": "Done."}, False),
    ],
)
def test_as_shipped_light_leaves_out_equal_rows_only(write_rows, filtered, one, other, alike):
    rows = [
        {"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", **answer}]} for answer in (one, other)
    ]
    folder, *_ = filtered(f"data.train={write_rows(rows)}", "+filter=light")
    assert falls(folder) == ({"duplicates": 1} if alike else {})


def test_pairs_with_other_rejected_answers_are_not_alike(write_rows, filtered):
    asked = {"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]}
    rows = write_rows([{**asked, "rejected_response": answer} for answer in ("No.", "Never.", "No.")])
    folder, *_ = filtered(f"data.train={rows}", "+filter=strict", "method=dpo")
    assert falls(folder) == {"duplicates": 1}


def test_other_words_that_are_not_wanted_are_other_settings(many, filtered, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("pear\n")
    settings = (f"data.train={many}", f"filter.unwanted.words={words}")
    filtered(*settings)
    words.write_text("circle\n")
    patterns_in.cache_clear()  # as in a new process
    _, _, err = filtered(*settings, code=2)
    assert "other settings (unwanted)" in err


def test_rows_of_which_none_can_be_used_are_told_with_the_first_reason(write_rows, filtered):
    _, _, err = filtered(f"data.train={write_rows([{'a': 1}, {'a': 2}])}", code=2)
    assert err.startswith("qwenvl-train: filter: no row can be used; the first: ")
    assert "rows.jsonl:1" in err


def test_a_folder_below_a_file_is_one_sentence(many, filtered):
    _, _, err = filtered(f"data.train={many}", to="rows.jsonl/out", code=2)
    assert "rows.jsonl/out" in err
    assert err.count("\n") == 1


def test_a_full_disk_is_told_before_the_work(many, filtered, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 99, 1)
    monkeypatch.setattr(filtering.shutil, "disk_usage", lambda folder: usage)
    _, _, err = filtered(f"data.train={many}", code=2)
    assert "the disk has 0.0 GiB free" in err


def test_numbers_that_json_does_not_have_become_null(tmp_path, filtered):
    table = pa.table({"query": ["How?"], "response": [GOOD], "score": [float("nan")]})
    pq.write_table(table, tmp_path / "rows.parquet")
    folder, *_ = filtered(f"data.train={tmp_path / 'rows.parquet'}")
    assert read_lines(folder / "kept.jsonl")[0]["score"] is None
    assert "NaN" not in (folder / "kept.jsonl").read_text()


def test_the_page_names_what_a_rule_measures_with_its_unit(write_rows, filtered):
    long = " ".join(str(number) for number in range(700)) + "."
    folder, *_ = filtered(f"data.train={write_rows([said(GOOD), said(long)])}", "filter.lengths.use=mark",
                          "filter.lengths.max_turns=9")  # fmt: skip
    page = " ".join((folder / "report.html").read_text().split())
    assert 'longest answer: <span class="soft">median 1,378 characters, 99 % 2,66' in page
    assert 'share of repeated words: <span class="soft">median 0.0 %' in page
    lengths = next(rule for rule in result(folder)["rules"] if rule["name"] == "lengths")
    assert (lengths["measures"], lengths["unit"], lengths["quantiles"]["largest"]) == (
        "longest answer",
        "characters",
        len(long),
    )


def test_of_alike_images_the_bits_are_measured(tmp_path, write_rows, filtered):
    Image.effect_noise((90, 60), 80).save(tmp_path / "a.png")
    rows = [said(answer, "<image>What is it?", images=[str(tmp_path / "a.png")]) for answer in (GOOD, "A cat.")]
    settings = ("filter.duplicates.use=drop", "filter.duplicates.by=images")
    folder, *_ = filtered(f"data.train={write_rows(rows)}", *settings)
    (dropped,) = read_lines(folder / "dropped.jsonl")
    because = {"rule": "duplicates", "value": 0.0}
    because["evidence"] = f"its images differ in 0 of 64 bits from those of {tmp_path / 'rows.jsonl'}:1"
    assert dropped["dropped_by"] == [because]
    duplicates = result(folder)["rules"][-1]
    assert (duplicates["unit"], duplicates["quantiles"]["largest"]) == ("of 64 bits", 0.0)


@pytest.mark.parametrize(("use", "rule"), [("drop", "malformed_boxes"), ("mark", "unusable")])
def test_a_row_with_an_inverted_box_falls_to_the_rule_about_boxes(tmp_path, write_rows, filtered, use, rule):
    Image.effect_noise((90, 60), 80).save(tmp_path / "a.png")
    objects = {"ref": ["cup"], "bbox": [[50, 10, 20, 50]]}
    inverted = said("<ref-object><bbox>", "<image>Where?", images=[str(tmp_path / "a.png")], objects=objects)
    path = write_rows([said(GOOD), inverted])
    folder, *_ = filtered(f"data.train={path}", f"filter.malformed_boxes.use={use}")
    assert falls(folder) == {rule: 1}
    evidence = read_lines(folder / "dropped.jsonl")[0]["dropped_by"][0]["evidence"]
    assert "box 1 is [50, 10, 20, 50]; a box goes from its top left" in evidence
    assert result(folder)["words"]["questions"]["before"][0] == 3  # nothing is counted of a row that is not read


def test_the_rows_of_the_embedded_example_are_not_filtered_unless_they_are_asked_for(filtered):
    _, _, err = filtered(code=2)
    assert "data.train is not set" in err
    folder, *_ = filtered("data=shapes")
    assert result(folder)["rows"] > 100


def test_repeats_are_those_of_the_entry(many, filtered):
    folder, *_ = filtered(f"data.train=[{{path: {many}, repeats: 2}}]")
    assert yaml.safe_load((folder / "data.yaml").read_text())["train"][0]["repeats"] == 2
