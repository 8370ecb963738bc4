"""The sweep of a training run. The runs themselves are replaced, since each would start a process of its own."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import pytest
import yaml

from qwenvl_train.cli import main
from qwenvl_train.verbs.sweep import command
from qwenvl_train.verbs.sweep.process import message_of, start

LORA = ["+recipe=sft_lora", "train.max_steps=2"]


@pytest.fixture
def sweep(tmp_path, monkeypatch, capfd):
    """Starts a sweep and returns its exit code, what it printed, and the commands of the runs that it started. A run
    ends with the code that `codes` has for its number, and otherwise writes a summary."""

    def run(*words: str, codes: dict[int, int] | None = None) -> tuple[int, str, list[list[str]]]:
        started: list[list[str]] = []

        def stand_in(arguments: list[str]) -> tuple[int, str]:
            started.append(arguments)
            if code := (codes or {}).get(len(started), 0):
                return code, "rows.jsonl:3 is broken"
            write_run(arguments)
            return 0, ""

        monkeypatch.setattr(command, "start", stand_in)
        with pytest.raises(SystemExit) as ended:
            main(["-m", *LORA, f"output_dir={tmp_path}", *words])
        return ended.value.code, capfd.readouterr().out, started

    return run


def write_run(arguments: list[str]) -> None:
    """Write what a run with these arguments would leave."""
    from pathlib import Path

    from qwenvl_train.config.compose import compose

    config = compose(arguments[1:]).config
    folder = Path(config.output_dir) / config.run_name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    rows = [{"step": step, "eval_exact_match": step / 4, "eval_loss": 3 - step} for step in (0, 2)]
    metrics = {"before": rows[0], "after": rows[1]}
    summary = {"status": "done", "seconds": 75.0, "metrics": metrics, "best": rows[1]}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def comparison(folder) -> list[dict[str, str]]:
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_for_each_value_and_a_comparison(sweep, tmp_path):
    code, out, started = sweep("train.lr=1e-4,2e-4", "seed=range(1,3)", "run_name=rates", codes={3: 2})
    names = [f"lr-{rate}_seed-{seed}" for rate in ("0.0001", "0.0002") for seed in (1, 2)]
    assert code == 2, "one run failed, and the others did not end with it"
    assert [row["run"] for row in comparison(tmp_path / "rates")] == names
    assert [row["status"] for row in comparison(tmp_path / "rates")] == ["done", "done", "failed", "done"]
    assert comparison(tmp_path / "rates")[2]["message"] == "rows.jsonl:3 is broken"
    for run, arguments in zip(names, started, strict=True):
        assert arguments[0] == "train"
        assert arguments[-3:] == [
            f"output_dir='{tmp_path}/rates'", f"run_name='{run}'", f"data.cache='{tmp_path}/.cache'",
        ]  # fmt: skip
    lines = out.splitlines()
    assert "lr-0.0001_seed-1  exact match 0.0 % → 50.0 %  50.0 % at step 2  1.0000  1m 15s" in lines
    assert "lr-0.0002_seed-1 failed: rows.jsonl:3 is broken" in lines
    assert lines[-1] == f"comparison  {tmp_path}/rates/comparison.csv"


def test_the_same_command_starts_only_what_is_not_finished(sweep):
    words = ("train.lr=1e-4,2e-4", "run_name=rates")
    code, out, started = sweep(*words, codes={2: 143})
    assert (code, len(started)) == (143, 2), "an interrupted run ends the sweep"
    assert out.endswith("to continue the sweep: the same command with run_name=rates\n")
    code, out, started = sweep(*words)
    assert code == 0
    assert ["run_name='lr-0.0001'" in arguments for arguments in started] == [False]
    assert "--- run 1 of 2: lr-0.0001\nthis run is already finished" in out
    # A run with other settings is not the same run; training says so.
    for changed in ("train.clip=7", "train.accumulation=7"):
        _, _, started = sweep(*words, changed, codes={1: 2, 2: 2})
        assert len(started) == 2


@pytest.mark.parametrize(("codes", "code"), [({}, 0), ({1: 2}, 2), ({1: 2, 2: 1}, 1), ({2: -9}, 1)])
def test_the_exit_code_is_that_of_the_worst_run(codes, code, sweep):
    assert sweep("seed=1,2", codes=codes)[0] == code


def test_a_table_that_is_too_wide_becomes_lines(sweep, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = sweep("seed=1,2", "run_name=a")
    assert (
        "\nseed-1: held-out score exact match 0.0 % → 50.0 %, best\n    50.0 % at step 2, loss 1.0000, time 1m 15s\n"
        in out
    )


def test_a_launcher_does_not_sweep(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    assert main(["-m", *LORA, "seed=1,2"]) == 2
    assert "which a launcher would do once for each process" in capsys.readouterr().err


def test_a_failed_run_gives_its_message(capfd):
    code, message = start(["trainn"])
    assert code == 2
    assert message.startswith("trainn: there is no such verb; did you mean train?")
    assert "qwenvl-train: trainn" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("code", "lines", "message"),
    [
        (2, ["noise", "qwenvl-train: 2 problems", "  a", "  b"], "2 problems; a; b"),
        (1, ["Traceback", "  File", "ZeroDivisionError: division", ""], "ZeroDivisionError: division"),
        (-9, ["noise"], "killed by SIGKILL"),
        (3, [], "exit code 3"),
    ],
)
def test_a_message_is_what_a_run_said_last(code, lines, message):
    assert message_of(code, lines) == message


def test_a_signal_reaches_the_run_and_ends_the_sweep(monkeypatch):
    """The run is an interpreter that says that it has started, and waits."""
    before = signal.getsignal(signal.SIGINT)
    waits = "import sys, time; print('started', file=sys.stderr, flush=True); time.sleep(60)"

    class Waiting(subprocess.Popen):
        def __init__(self, arguments, **options):
            super().__init__([sys.executable, "-c", waits], **options)

    class Errors(io.StringIO):
        def write(self, text: str) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return len(text)

    monkeypatch.setattr(subprocess, "Popen", Waiting)
    monkeypatch.setattr(sys, "stderr", Errors())
    assert start([]) == (128 + signal.SIGTERM, "SIGTERM")
    assert signal.getsignal(signal.SIGINT) is before
