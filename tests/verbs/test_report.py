"""`qwenvl-train report`, on a folder as a killed run leaves it."""

import os
import subprocess
import sys

import pytest

from qwenvl_train.cli import main
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.metrics import MetricsFile
from qwenvl_train.reporting.recorded import read_run
from qwenvl_train.reporting.reporter import RunInfo
from qwenvl_train.run.lock import locked
from tests.reporting.rows import COMPONENTS, CONFIG, evaluation_row, training_row
from tests.reporting.test_report import Page


@pytest.fixture
def killed(tmp_path):
    folder = RunFolder(tmp_path / "mine")
    folder.write_config(CONFIG)
    folder.write_components(COMPONENTS)
    metrics = MetricsFile()
    metrics.start(RunInfo("mine", folder.path, CONFIG, COMPONENTS, 120, 0))
    metrics.log(evaluation_row(0, 0.05))
    metrics.log(training_row(40))
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')
    return folder.path


def test_a_killed_run_gets_its_report_without_torch(killed):
    code = (
        "import sys; from qwenvl_train.cli import main; c = main(sys.argv[1:]); sys.exit(c or 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "report", str(killed)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{killed} has ended without a summary; the report shows what it has recorded so far\n"
        f"report      {killed}/report.html\n"
    )
    text = Page((killed / "report.html").read_text(encoding="utf-8")).text
    assert "not finished" in text
    assert "Steps 40" in text
    assert "Held-out exact match before training 5.0 %" in text


def test_a_run_that_goes_on_is_told_from_one_that_was_killed(killed, capsys):
    with locked(killed):
        assert main(["report", str(killed)]) == 0
        assert "training, step 40 " in Page((killed / "report.html").read_text(encoding="utf-8")).text
        (killed / "environment.json").write_text('{"steps": 1200}')
        assert read_run(killed).status == "training, step 40 of 1,200"
    assert "is still running; the report shows what" in capsys.readouterr().out
    assert read_run(killed).status == "not finished"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "report takes a run folder and nothing else, such as qwenvl-train report runs/mine; no folder is given."),
        (["a", "b"], "got a b."),
        (["+recipe=sft_lora"], "got +recipe=sft_lora."),
        (["gone"], "report: gone does not exist; name a run folder"),
        (["{empty}"], "is not a run folder: it has no config.yaml"),
    ],
)
def test_what_is_no_run_folder_is_one_sentence(words, told, tmp_path, capsys):
    assert main(["report", *(word.format(empty=tmp_path) for word in words)]) == 2
    assert told in capsys.readouterr().err
