"""The pure parts of scripts/loop.py: its planted faults are the same each time, and its claims can fail."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.*")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def test_faults_are_planted_the_same_way_each_time(tmp_path):
    from loop_rows import FAULTS, NEAR_DUPLICATE, Sizes, draw_rows

    sizes = Sizes(clean=30, per_fault=2, pool=30, held_out=30)
    faults = [draw_rows(tmp_path / name, sizes, seed) for name, seed in (("one", 5), ("same", 5), ("other", 6))]
    assert faults[0] == faults[1] != faults[2]
    assert digest(tmp_path / "one") == digest(tmp_path / "same") != digest(tmp_path / "other")
    assert Counter(faults[0].values()) == dict.fromkeys([*FAULTS, NEAR_DUPLICATE], 2) | {None: 30}
    rows = [json.loads(line) for line in (tmp_path / "one" / "labelled.jsonl").read_text().splitlines()]
    by_id = {row["id"]: row["conversations"] for row in rows}
    of_kind = {kind: by_id[name][1]["value"] for name, kind in faults[0].items()}
    assert of_kind[None].startswith("bin ")
    assert of_kind["repeated_words"].count("so it goes to") > 8
    with pytest.raises(json.JSONDecodeError):
        json.loads(of_kind["broken_json"])


def test_no_held_out_image_is_in_other_rows(tmp_path):
    from loop_rows import Sizes, draw_rows

    draw_rows(tmp_path, Sizes(clean=30, per_fault=1, pool=30, held_out=30), 5)
    images = {path.stem: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    held_out = {image for name, image in images.items() if name.startswith("held_out")}
    assert len(held_out) == 30
    assert held_out.isdisjoint(image for name, image in images.items() if not name.startswith("held_out"))


def scores(*lows: float | None) -> list:
    from loop import STEPS, Score

    found = [Score(STEPS[0], 0.1, 0.05, 0.15)]
    for step, low in zip(STEPS[1:], lows, strict=False):
        found.append(Score(step, 0.5, 0.4, 0.6, 0.1, low, 0.2, 0.01))
    return found


def test_a_step_that_does_not_rise_fails_its_claim():
    from loop import failed_claims

    assert failed_claims(scores(0.05, 0.02, 0.01)) == []
    (failed,) = failed_claims(scores(0.05, 0.0, 0.01))
    assert failed == "sampled is not better than filtered: +10.0%, at least +0.0%"
    (failed,) = failed_claims(scores(-0.02, 0.02, 0.01))
    assert failed.startswith("filtered is not better than unfiltered")
    (failed,) = failed_claims(scores(0.05, 0.02, None))
    assert failed == "preferred is not compared with sampled"
    (failed,) = failed_claims(scores(0.05, 0.02))
    assert "only" in failed


def test_the_filter_is_measured_against_what_was_planted():
    from loop import filter_figures

    found = filter_figures({"a": None, "b": None, "c": "cut_answer", "d": "wrong_bin"}, ["a", "d"])
    assert (found["precision"], found["recall"]) == (0.5, 0.5)
    assert found["dropped_of_kind"] == {"cut_answer": [1, 1], "none": [1, 2], "wrong_bin": [0, 1]}


def test_scores_are_read_from_what_eval_prints():
    from loop import scores_of

    one = {"value": 0.2, "low": 0.1, "high": 0.3}
    change = {"difference": 0.3, "low": 0.2, "high": 0.4, "probability": 0.01}
    others = [{"scores": [one | {"value": value}], "differences": [change]} for value in (0.5, 0.6)]
    first, second, third = scores_of(("a", "b", "c"), {"scores": [one], "compare": others})
    assert (first.step, first.score, first.difference) == ("a", 0.2, None)
    assert (second.score, second.difference, second.difference_low, second.p) == (0.5, 0.3, 0.2, 0.01)
    assert (third.step, third.score) == ("c", 0.6)


def test_the_control_has_the_chosen_answers_alone(tmp_path):
    from loop import write_chosen

    pair = {"id": "a", "messages": [{"role": "assistant", "content": "Gerät"}], "rejected_response": "no"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    write_chosen(tmp_path)
    assert json.loads((tmp_path / "chosen.jsonl").read_text()) == {"id": "a", "messages": pair["messages"]}
