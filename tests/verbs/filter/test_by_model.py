"""What `filter` makes of the judgements by a model: a stand-in that reads them from the ids of rows, and the embedded
model."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from qwenvl_train.curation.judging.causal import CausalEngine
from qwenvl_train.curation.judging.classes import ClassOfRow
from qwenvl_train.curation.judging.judge import Judgement
from qwenvl_train.verbs.filter import filtering
from qwenvl_train.verbs.filter.by_model import ModelJudge
from tests.commands import read_lines
from tests.verbs.eval.test_eval import asked
from tests.verbs.filter.rows import AGAIN, GOOD, falls, result, said

TREE = {"seen": {"things": {"description": "things", "limit": 2}, "places": "places"}, "read": {"signs": "signs"}}


class StandIn:
    identity = "stand-in"
    """Judges a row by its id: the class, and the score of the correctness of its answer."""

    def __init__(self):
        self.judged: list[str] = []

    def judge(self, rows):
        return [self._judgement(row.sample.id) for row in rows]

    def _judgement(self, id: str) -> Judgement:
        self.judged.append(id)
        if id == "broken":
            return Judgement(problem="rows.jsonl:9 (id broken): the image cannot be read.")
        of_class, score, *_ = id.split(" ")
        domain = next(domain for domain, classes in TREE.items() if of_class in classes)
        return Judgement(ClassOfRow(domain, of_class, 0.9), {"answer_correctness": float(score)})


@pytest.fixture
def judge(monkeypatch):
    made = StandIn()
    monkeypatch.setattr(
        filtering, "open_model_judge", lambda config, tree, state: ModelJudge(made, tree, config.filter)
    )
    return made


@pytest.fixture
def tree(tmp_path):
    def write(**changed) -> str:
        path = tmp_path / "classes.yaml"
        path.write_text(yaml.safe_dump(TREE | changed))
        return f"filter.classes.tree={path}"

    return write


IDS = ("things 4", "things 2", "places 5", "things 3", "signs 1", "things 5", "broken")


@pytest.fixture
def rows(write_rows) -> Path:
    repeated = [said(AGAIN, id="never asked")]
    return write_rows([*(said(f"{GOOD} {number}", id=id) for number, id in enumerate(IDS)), *repeated])


def kept(folder: Path) -> list[str]:
    return [row["id"] for file in sorted(folder.glob("kept*.jsonl")) for row in read_lines(file)]


def test_limits_keep_the_best_rows_of_a_class(rows, filtered, judge, tree):
    settings = ("filter.classes.use=drop", "filter.scores.use=drop", "filter.scores.answer_correctness.min=2.5")
    folder, out, _ = filtered(f"data.train={rows}", tree(), *settings)
    assert judge.judged == list(IDS)
    # The second row falls to its score, so that it does not count for the limit of its class.
    assert kept(folder) == ["things 4", "places 5", "things 5", "broken"]
    assert falls(folder) == {"repeated_ngrams": 1, "scores": 2, "classes": 1}
    dropped = {row["id"]: row["dropped_by"] for row in read_lines(folder / "dropped.jsonl")}
    assert dropped["things 3"][0] == {
        "rule": "classes", "value": 0.9, "evidence": "the class seen/things has its limit of 2 rows",
    }  # fmt: skip
    assert dropped["things 2"][0] == {
        "rule": "scores", "value": 2.0, "evidence": "answer_correctness is 2.00, below 2.5",
    }  # fmt: skip
    table = {row["id"]: row for row in pq.read_table(folder / "verdicts.parquet").to_pylist()}
    assert (table["things 3"]["classes"], table["things 3"]["class"]) == (True, "seen/things")
    assert (table["signs 1"]["classes"], table["signs 1"]["score.answer_correctness"]) == (False, 1.0)
    assert table["broken"]["not_judged"] == "rows.jsonl:9 (id broken): the image cannot be read."
    assert table["never asked"]["class"] is None
    assert "1 row could not be judged; the first: rows.jsonl:9" in out
    assert "3 classes, with kept rows: seen/things 2 of 4, read/signs 0 of 1, seen/places 1 of 1" in out
    assert result(folder)["scores"]["answer_correctness"]["median"] == 3.5


def test_weights_of_classes_make_a_mixture(rows, filtered, judge, tree, verb):
    weighted = tree(
        seen={"things": {"description": "things", "weight": 3}, "places": {"description": "places", "weight": 1}},
        read={"signs": {"description": "signs", "weight": 2}},
    )
    folder, *_ = filtered(f"data.train={rows}", weighted, "filter.classes.use=mark")
    entries = yaml.safe_load((folder / "data.yaml").read_text())["train"]
    # The row without a class keeps its share: one row to the six that have one, whose weights are 6 together.
    assert {entry["path"]: entry["weight"] for entry in entries} == {
        "kept-1-rows-no-class.jsonl": 1.0, "kept-2-rows-read-signs.jsonl": 2.0, "kept-3-rows-seen-places.jsonl": 1.0,
        "kept-4-rows-seen-things.jsonl": 3.0,
    }  # fmt: skip
    assert [row["id"] for row in read_lines(folder / "kept-3-rows-seen-places.jsonl")] == ["places 5"]
    out, _ = verb("inspect", f"data={folder / 'data.yaml'}", "inspect.samples=0", "output=text")
    assert "kept-4-rows-seen-things.jsonl: 4 rows" in out


def test_a_class_can_be_dropped_and_judgements_are_stored_by_chunk(rows, filtered, judge, tree, monkeypatch):
    monkeypatch.setattr(filtering, "_CHUNK", 4)
    without = tree(seen={"things": {"description": "things", "drop": True}, "places": "places"})
    settings = (f"data.train={rows}", without, "filter.classes.use=drop")

    def killed(rows):
        if any(row.sample.id == "signs 1" for row in rows):
            raise KeyboardInterrupt
        return StandIn.judge(judge, rows)

    monkeypatch.setattr(judge, "judge", killed)
    filtered(*settings, code=130)
    monkeypatch.undo()
    monkeypatch.setattr(filtering, "_CHUNK", 4)
    monkeypatch.setattr(
        filtering, "open_model_judge", lambda config, tree, state: ModelJudge(judge, tree, config.filter)
    )
    judge.judged.clear()
    folder, *_ = filtered(*settings)
    assert judge.judged == ["signs 1", "things 5", "broken"]
    assert kept(folder) == ["places 5", "signs 1", "broken"]


def test_the_embedded_model_finds_images_that_are_not_needed(write_rows, filtered, monkeypatch):
    """It names what it sees, and it knows how to repeat the name of a bin."""
    seen = asked(11, "an orange square", id="seen")
    told = asked(15, "bin D4", id="told")
    told["conversations"][0]["value"] = "<image>\nPlease say bin D4."
    path = write_rows([seen, told])
    settings = (f"data.train={path}", "+filter=light", "filter.needless_image.use=drop", "model=tiny")
    passes = []
    figures = CausalEngine._figures
    monkeypatch.setattr(CausalEngine, "_figures", lambda *call: passes.append(1) or figures(*call))
    folder, *_ = filtered(*settings)
    assert kept(folder) == ["seen"]
    evidence = read_lines(folder / "dropped.jsonl")[0]["dropped_by"][0]["evidence"]
    assert evidence.startswith("the answer's tokens have a probability of ")
    assert len(passes) == 1
    # Other thresholds need no further pass.
    folder, *_ = filtered(*settings, "filter.needless_image.max_gain=-1", to="all")
    assert (kept(folder), len(passes)) == (["seen", "told"], 1)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (("filter.judge.engine=endpoint",), "filter.judge.engine has no effect without filter.classes"),
        (("filter.scores.use=mark", "filter.endpoint.url=http://a"), "has no effect without filter.judge.engine="),
        (("filter.leaked_answer.max_share=0.5",), "has no effect with filter.leaked_answer.use=off"),
        (("filter.classes.min_probability=0.5",), "has no effect with filter.classes.use=off"),
        (("filter.language.use=drop",), "filter.language.use=drop needs filter.language.languages"),
        (("filter.language.use=drop", "filter.language.languages=[english]"), "english is no code of a language"),
        (("filter.classes.use=mark", "filter.judge.engine=endpoint"), "filter.endpoint.url is not set"),
        (("filter.classes.use=mark", "filter.classes.tree=none.yaml"), "none.yaml cannot be read"),
        (
            ("filter.scores.use=mark", "filter.judge.engine=endpoint", "filter.endpoint.url=http://example.com/v1",
             "filter.endpoint.model=m"),
            "example.com",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(rows, filtered, settings, problem):
    _, _, err = filtered(f"data.train={rows}", *settings, code=2)
    assert problem in err
    assert err.count("\n") <= 3


def test_class_names_that_look_alike_have_files_of_their_own(write_rows, filtered, judge, tmp_path):
    classes = {name: {"description": name, "weight": 1} for name in ("C", "C++", "C#")}
    path = tmp_path / "languages.yaml"
    path.write_text(yaml.safe_dump({"code": classes}))
    judge._judgement = lambda id: Judgement(ClassOfRow("code", id.split(" ")[0], 0.9))
    ids = [f"{name} {number}" for name in classes for number in range(2)]
    rows = write_rows([said(f"{GOOD} {id}", id=id) for id in ids])
    folder, *_ = filtered(f"data.train={rows}", f"filter.classes.tree={path}", "filter.classes.use=mark")
    files = [
        read_lines(folder / entry["path"]) for entry in yaml.safe_load((folder / "data.yaml").read_text())["train"]
    ]
    assert sorted(tuple(row["id"] for row in rows) for rows in files) == [
        ("C 0", "C 1"), ("C# 0", "C# 1"), ("C++ 0", "C++ 1"),
    ]  # fmt: skip


def test_repeats_and_weights_of_classes_do_not_go_together(rows, filtered, judge, tree):
    weighted = tree(read={"signs": {"description": "signs", "weight": 2}})
    _, _, err = filtered(f"data.train=[{{path: {rows}, repeats: 2}}]", weighted, "filter.classes.use=mark", code=2)
    assert "has repeats, and classes of filter.classes.tree have weights" in err


def test_another_judge_or_seed_is_refused(rows, filtered, judge, tree):
    settings = (f"data.train={rows}", tree(), "filter.classes.use=mark")
    filtered(*settings)
    _, _, err = filtered(*settings, "seed=7", code=2)
    assert "other settings (seed)" in err
    changed = tree(read={"signs": {"description": "signs", "limit": 1}})
    _, _, err = filtered(settings[0], changed, settings[2], code=2)
    assert "other settings (classes)" in err
    tree()
    judge.identity = "another"
    _, _, err = filtered(*settings, code=2)
    assert "other settings (judge)" in err


def test_a_class_is_shared_by_entries_by_their_rows_and_weights(write_rows, filtered, judge, tree):
    weighted = tree(seen={"things": {"description": "things", "weight": 6}, "places": "places"})
    one = write_rows([said(f"{GOOD} {number}", id=f"things {number}") for number in range(2)], "one.jsonl")
    other = write_rows([said(f"{GOOD} {number}", id=f"things {number}") for number in range(4)], "other.jsonl")
    entries = f"[{{path: {one}, weight: 4}}, {{path: {other}, weight: 1}}]"
    folder, *_ = filtered(f"data.train={entries}", weighted, "filter.classes.use=mark")
    written = yaml.safe_load((folder / "data.yaml").read_text())["train"]
    assert [entry["weight"] for entry in written] == [4.0, 2.0]  # 6 is shared as 2 rows × 4 to 4 rows × 1
