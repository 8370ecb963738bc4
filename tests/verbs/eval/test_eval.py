"""`qwenvl-train eval`, with the embedded model, which names colours and shapes."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from qwenvl_train.cli import main
from qwenvl_train.config.assets import asset_dir
from qwenvl_train.evaluation.metrics.metric import Part
from qwenvl_train.evaluation.scoring import Figure, ScoredRow
from qwenvl_train.run import generating
from qwenvl_train.run.answers_folder import AnswersFolder
from qwenvl_train.verbs.eval.results import ModelResults, _compared
from tests.commands import QUIET, read_lines, train

RIGHT = {11: "an orange square", 15: "a green circle", 16: "a yellow square"}
"""Drawings of data/shapes, and what the embedded model says of them."""


def asked(number: int, expected: str, **more) -> dict:
    picture = asset_dir("data") / f"shapes/images/eval-{number:03d}.png"
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": expected}]
    return {"image": str(picture), "conversations": turns, **more}


@pytest.fixture
def held_out(write_rows) -> Path:
    """Three rows that the model answers as expected, and one that it does not."""
    return write_rows([asked(*right) for right in RIGHT.items()] + [asked(31, "a blue ring")])


@pytest.fixture
def evaluate(tmp_path, monkeypatch, capsys):
    """Runs the command in a folder of its own. Returns the exit code and the output."""
    monkeypatch.chdir(tmp_path)

    def run(*settings: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["eval", *settings, "data.workers=0"])
        return code, *capsys.readouterr()

    return run


def scores_of(folder: Path) -> dict:
    found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["scores"]
    return {(one["entry"], one["metric"]): one["value"] for one in found}


def test_answers_are_generated_once_and_scored_as_often_as_wanted(held_out, evaluate, monkeypatch, tmp_path):
    code, out, _ = evaluate(f"data.eval={held_out}")
    assert code == 0
    assert "4 answers in " in out
    assert "rows.jsonl: scored by exact_match, anls (" in out
    (folder,) = (tmp_path / "runs/eval").iterdir()
    assert scores_of(folder)["rows.jsonl", "exact_match"] == 0.75
    rows = read_lines(folder / "predictions.jsonl")
    assert [row["answer"] for row in rows[:3]] == list(RIGHT.values())
    assert rows[0]["scores"]["exact_match"] == {"exact_match": 1.0}
    assert [row["ended"] for row in rows] == [True] * 4
    assert "rows.jsonl:4  exact_match 0.0 %  'What is it?' | expected 'a blue ring' | got '" in out
    # The model is not even loaded again.
    monkeypatch.setattr(generating, "build_for_inference", None)
    code, out, _ = evaluate(f"data.eval={held_out}", "eval.metrics=[contains,wer]")
    assert code == 0
    assert "all 4 answers are from before; nothing was generated" in out
    assert scores_of(folder)["rows.jsonl", "contains"] == 0.75
    assert read_lines(folder / "predictions.jsonl")[0]["scores"] == {"contains": {"contains": 1.0}, "wer": {"wer": 0.0}}


def test_a_killed_evaluation_goes_on_where_it_was(held_out, evaluate, monkeypatch, tmp_path):
    append = AnswersFolder.append

    def killed(self, rows, process):
        append(self, rows, process)
        if len(list(self.path.glob("predictions.0.jsonl"))) and len(read_lines(self.path / "predictions.0.jsonl")) == 2:
            with (self.path / "predictions.0.jsonl").open("a") as file:
                file.write('{"index": 3, "turns": 1, "tu')
            raise KeyboardInterrupt

    settings = f"data.eval={held_out}", "eval.to=here", "eval.batch_size=1"
    monkeypatch.setattr(AnswersFolder, "append", killed)
    assert evaluate(*settings)[0] == 130
    monkeypatch.setattr(AnswersFolder, "append", append)
    code, out, _ = evaluate(*settings)
    assert code == 0
    assert "2 answers in " in out
    assert "; 2 further answers from before" in out
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "predictions.jsonl", "scores.json", "settings.json"
    ]  # fmt: skip
    assert evaluate(f"data.eval={held_out}", "eval.to=whole")[0] == 0
    whole, resumed = ((tmp_path / name / "predictions.jsonl").read_text() for name in ("whole", "here"))
    assert resumed == whole
    code, _, told = evaluate(f"data.eval={held_out}", "eval.to=here", "eval.max_new_tokens=5")
    assert code == 2
    assert "eval.to=here holds results of other settings (max_new_tokens); name another" in told


def test_a_run_is_evaluated_at_its_best_checkpoint_and_compared_with_its_base(held_out, evaluate, tmp_path):
    settings = (
        "+recipe=sft_lora", f"data.eval={held_out}", "train.max_steps=2", "train.epochs=null", "train.save_steps=1",
        "train.eval_steps=1", "train.lr=1", "train.lr_mlp=1", "train.warmup=1", QUIET, "model=tiny_qwen2_vl",
        "eval.generate=true", "eval.samples=1", "eval.max_new_tokens=4",
    )  # fmt: skip
    folder = train(tmp_path / "runs", *settings)
    # The first step has a learning rate of 0, and the second one makes the model worse.
    best = folder / "checkpoints" / "step-1"
    code, out, _ = evaluate(
        "run=runs/run", "eval.compare=[base]", "output=html", "eval.max_new_tokens=8", "eval.worst=1"
    )
    assert code == 0
    assert f"from {best.absolute()}, fp32" in out
    assert f"{best.absolute()}: 4 answers in " in out  # eval.samples bounds the evaluations of the run alone
    (found,) = (folder / "eval").iterdir()
    assert "data/tiny_qwen2_vl" in json.loads((found / "scores.json").read_text())["compare"][0]["model"]
    page = (found / "eval.html").read_text()
    assert page.count("<article") == 1
    assert page.count("data:image/webp") == 1
    assert "answer of " in page
    code, _, told = evaluate("run=runs/run/checkpoints/step-9")
    assert code == 2
    assert "there is no such checkpoint; the run has step-1, step-2." in told


def test_a_run_that_learned_from_pairs_answers_rows_without_and_with_a_rejected_answer(
    held_out, evaluate, write_rows, tmp_path
):
    train(tmp_path / "runs", "+recipe=dpo_lora", "train.epochs=null", "train.max_steps=1", "data.eval=null", QUIET)
    pair = asked(11, RIGHT[11]) | {"rejected_response": "a ring"}
    pairs = write_rows([pair | {"messages": pair.pop("conversations")}], "pairs.jsonl")
    code, _, told = evaluate("run=runs/run", f"data.eval=[{held_out},{pairs}]", "eval.metrics=exact_match")
    assert code == 0, told
    (found,) = (tmp_path / "runs" / "run" / "eval").iterdir()
    scores = scores_of(found)
    assert scores["rows.jsonl", "exact_match"] == 0.75
    assert scores["pairs.jsonl", "exact_match"] == 1.0


def test_stdout_has_nothing_but_json(held_out, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", f"data.eval={held_out}", "output=json", "data.workers=0", "eval.samples=2"]) == 0
    lines = capfd.readouterr().out.splitlines()
    (facts,) = map(json.loads, lines)
    assert (facts["samples"], facts["answers"], facts["cut"]) == (2, 2, 0)
    assert facts["scores"][0]["metric"] == "exact_match"


def test_a_function_of_your_own_scores_answers(held_out, evaluate, tmp_path, monkeypatch):
    (tmp_path / "mine_for_eval.py").write_text(
        'def letters(answer, expected, question):\n    """Number of letters."""\n    return float(len(answer))\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = f"data.eval={held_out}", "eval.metrics=mine_for_eval.letters"
    code, _, told = evaluate(*settings)
    assert code == 2
    assert "imports and runs your own code; set eval.allow_code=true to allow it" in told
    code, out, _ = evaluate(*settings, "eval.allow_code=true", "eval.to=here")
    assert code == 0
    assert "mine_for_eval.letters: Number of letters." in out
    expected = sum(len(row["answer"]) for row in read_lines(tmp_path / "here/predictions.jsonl")) / 4
    assert scores_of(tmp_path / "here")["rows.jsonl", "mine_for_eval.letters"] == expected


def test_rows_name_their_metric_and_further_right_answers(evaluate, write_rows, tmp_path):
    rows = [
        asked(11, "a square", answers=["an orange square"], metric="contains"),
        asked(15, "ring", metric=["contains"]),
    ]
    code, out, _ = evaluate(f"data.eval={write_rows(rows)}", "eval.to=here")
    assert code == 0
    assert "scored by contains (its rows name them)" in out
    _, _, worst = out.partition("The answers with the lowest scores")
    assert "rows.jsonl:2  contains 0.0 %" in worst
    assert "rows.jsonl:1" not in worst
    assert scores_of(tmp_path / "here") == {("rows.jsonl", "contains"): 0.5}
    code, out, _ = evaluate(f"data.eval={write_rows(rows[:1])}", "eval.to=right")
    assert code == 0
    assert "\nAll answers are right\n" in out
    entry = f"data.eval=[{{path: {write_rows([asked(11, 'a square')])}, metric: [anls, cer]}}]"
    code, out, _ = evaluate(entry, "eval.to=there")
    assert code == 0
    assert "scored by anls, cer (its entry of data.eval names them)" in out


def test_a_metric_with_nothing_to_score_is_told(held_out, evaluate, tmp_path):
    """No answer has a table, neither the expected nor the generated one."""
    settings = [f"data.eval={held_out}", f"eval.compare={asset_dir('data') / 'tiny'}", "eval.to=here", "output=html"]
    code, out, _ = evaluate(*settings, "eval.metrics=[teds,layout]")
    assert code == 0
    assert "rows.jsonl: nothing to score by teds, layout\n" in out
    assert "All " not in out
    assert scores_of(tmp_path / "here") == {}
    assert "no score" in (tmp_path / "here/eval.html").read_text()
    code, out, _ = evaluate(*settings, "eval.metrics=[teds,exact_match]")
    assert code == 0
    assert "rows.jsonl: nothing to score by teds\n" in out
    assert scores_of(tmp_path / "here").keys() == {("rows.jsonl", "exact_match")}


def test_cards_tell_right_answers_by_the_direction_of_the_metric(held_out, evaluate, tmp_path, monkeypatch):
    """The error rate of a right answer is 0, and whether one is right by a metric of your own is not known."""
    settings = [f"data.eval={held_out}", "eval.metrics=[cer]", "eval.to=here"]
    assert evaluate(*settings, "output=html")[0] == 0
    _, out, _ = evaluate(*settings, "eval.worst=1")
    assert "The answers with the lowest scores\n  rows.jsonl:4  cer" in out
    page = (tmp_path / "here/eval.html").read_text()
    assert page.count('class="badge good">cer 0.0 %') == 3
    assert page.count('class="badge bad">cer') == 1
    (tmp_path / "mine_for_cards.py").write_text("def tenth(answer, expected, question):\n    return 0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = ["eval.metrics=[mine_for_cards.tenth]", "eval.allow_code=true"]
    assert evaluate(f"data.eval={held_out}", *own, "eval.to=here", "output=html")[0] == 0
    assert (tmp_path / "here/eval.html").read_text().count('class="badge unjudged">tenth 0.1') == 4


def test_answers_without_a_score_come_last(evaluate, write_rows):
    rows = [asked(15, "a ring", metric=["teds"]), asked(11, "a square", metric=["exact_match"])]
    code, out, _ = evaluate(f"data.eval={write_rows(rows)}", "eval.worst=1")
    assert code == 0
    assert "The answers with the lowest scores\n  rows.jsonl:2  exact_match 0.0 %" in out


def test_models_without_a_common_sample_are_not_compared():
    """The second model could not answer the sample of the first."""
    scored = [ScoredRow({"index": index, "entry": "a"}, {"m": {"m": Part(1.0)}}) for index in (0, 1)]
    first, other = (ModelResults(SimpleNamespace(model="x"), [one], []) for one in scored)
    figure = Figure("a", "m", "m", 1, 1, 1, 1, True)
    assert _compared(first, other, figure, seed=0) is None
    assert _compared(first, first, figure, seed=0).comparison.samples == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["model.path=x/y"], "data.eval is not set; name the file of the samples to answer"),
        (["data.eval=5%", "model=tiny"], "data.eval=5% is a share of data.train, which is not set"),
        (["run=runs/none"], "run=runs/none: runs/none does not exist; name a run folder or a checkpoint in one"),
        (["data.eval={rows}", "eval.metrics=anl"], "eval.metrics: there is no metric anl; did you mean anls?"),
        (["data.eval={rows}", "eval.metrics=no_such.one", "eval.allow_code=true"], "no_such.one cannot be imported"),
        (["data.eval={rows}", "eval.allow_code=true"], "eval.allow_code=true has no effect"),
        (["data.eval={rows}", "eval.to=."], "eval.to=. has other files in it; name a new folder."),
        (["data.eval={rows}", "eval.compare=base"], "is not an adapter, so its base model is not known"),
        (["data.eval={rows}", "eval.compare=runs/none"], "runs/none"),
        (["data.eval=none.jsonl"], "data.eval: there is no file or folder none.jsonl"),
    ],
)
def test_bad_input_is_one_sentence(settings, told, held_out, evaluate, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, _, error = evaluate(*(one.format(rows=held_out) for one in settings))
    assert code == 2
    assert told in error.replace("\n", " ")
    assert "Traceback" not in error
    assert [path for path in sorted(tmp_path.rglob("*")) if ".cache" not in str(path) and path.name != "runs"] == before


def test_run_and_model_path_name_one_model(evaluate, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/config.yaml").write_text("model: {path: x}\n")
    code, _, told = evaluate("a")
    assert code == 2
    assert "a: write settings as key=value; did you mean run=a?" in told
    code, _, told = evaluate("run=a", "model.path=b", "data.eval=x.jsonl")
    assert code == 2
    assert "run and model.path both name a model; set one of the two" in told
