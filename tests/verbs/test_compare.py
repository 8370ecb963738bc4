"""`qwenvl-train compare`, on folders as finished and killed runs leave them."""

import copy
import os
import subprocess
import sys

import pytest
import yaml

from qwenvl_train.cli import main
from qwenvl_train.reporting.folder import read_json_lines, write_json_lines_atomic
from qwenvl_train.reporting.reporter import RunInfo
from tests.reporting.rows import COMPONENTS, CONFIG, write_run
from tests.reporting.test_report import Page, charts_of


@pytest.fixture
def runs(tmp_path):
    """Two finished runs, which differ in a learning rate, a file, a score and an answer."""
    folders = []
    for name in ("first", "second"):
        folder, config = tmp_path / name, copy.deepcopy(CONFIG) | {"run_name": name, "output_dir": str(tmp_path)}
        folder.mkdir()
        if name == "second":
            config["train"]["lr"] = 2e-4
            config["data"]["train"][0]["path"] = "receipts/more.jsonl"
        write_run(RunInfo(name, folder, config, COMPONENTS, 120, 0), tmp_path)
        folders.append(folder)
    rows = read_json_lines(folders[1] / "predictions.jsonl")
    rows[1]["after"] = rows[1]["expected"]
    write_json_lines_atomic(folders[1] / "predictions.jsonl", rows)
    lines = (folders[1] / "metrics.jsonl").read_text(encoding="utf-8").replace('"eval_loss": 3.1,', '"eval_loss": 2.5,')
    (folders[1] / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folders


def test_scores_settings_curves_and_answers_are_compared_without_torch(runs):
    code = (
        "import sys; from qwenvl_train.cli import main; c = main(sys.argv[1:]); sys.exit(c or 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "compare", *map(str, runs)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"})
    assert (done.returncode, done.stderr) == (0, "")
    told = [line.split() for line in done.stdout.splitlines()]
    assert ["first", "second"] in told
    assert ["train.lr", "0.0001", "0.0002"] in told
    assert ["data.train.1.path", "receipts/train.jsonl", "receipts/more.jsonl"] in told
    assert ["held-out", "loss", "3.1000", "→", "0.0209", "2.5000", "→", "0.0209"] in told
    assert not [words for words in told if words[:1] in (["run_name"], ["train.max_steps"], ["output_dir"])]
    assert ["answers", "that", "differ:", "1", "of", "3"] in told
    path = runs[0].parent / "comparison.html"
    assert told[-1] == ["page", str(path)]

    page = Page(path.read_text(encoding="utf-8"))
    for text in (
        "Comparison of 2 runs",
        "receipts/more.jsonl",
        "Answers that differ: 1 of 3",
        "7.85",
        "✓ right",
        "✗ wrong",
    ):
        assert text in page.text
    (loss, *_) = charts_of(page)["charts"]
    assert [line["name"] for line in loss["lines"]] == ["first", "second"]


def test_runs_on_different_samples_and_a_killed_run(runs, capsys):
    config = yaml.safe_load((runs[1] / "config.yaml").read_text())
    config["data"]["eval"] = [{"path": "other.jsonl"}]
    (runs[1] / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("summary.json", "metrics.jsonl", "predictions.jsonl"):
        (runs[1] / name).unlink()
    assert main(["compare", *map(str, runs)]) == 0
    told = capsys.readouterr().out
    assert "not finished" in told
    assert "The runs were evaluated on different samples, so their held-out scores cannot be compared." in told
    assert "answers that differ" not in told


def test_a_run_that_is_not_finished_has_the_figures_of_its_last_step(runs, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    (runs[1] / "summary.json").unlink()
    assert main(["compare", *map(str, runs)]) == 0
    told = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert {"steps 120 120", "samples 480 480", "tokens 614,400 614,400", "time 3m 42s 3m 42s"} <= told


def test_many_runs_are_told_line_by_line(runs, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["compare", *map(str, runs)]) == 0
    told = capsys.readouterr().out.splitlines()
    at = told.index("held-out loss")
    assert told[at + 1 : at + 3] == ["  first: 3.1000 → 0.0209", "  second: 2.5000 → 0.0209"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["first"],
            "compare takes two or more run folders and nothing else, such as",
        ),
        (["first", "first"], "compare: a run folder is named twice."),
        (["first", "nowhere"], "nowhere does not exist; name a run folder"),
        (["first", "output=json"], "got first output=json."),
    ],
)
def test_a_mistake_is_told(words, told, runs, monkeypatch, capsys):
    monkeypatch.chdir(runs[0].parent)
    assert main(["compare", *words]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
