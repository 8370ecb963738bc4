import errno
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml

from qwenvl_train import __version__, cli
from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.options import groups, recipe_files
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.verbs.table import VERBS

LORA = "+recipe=sft_lora"


@pytest.fixture
def trained(monkeypatch):
    """What the train verb was handed, with the verb itself left out."""
    calls: list = []
    fake = SimpleNamespace(run=calls.append)
    monkeypatch.setitem(sys.modules, "qwenvl_train.verbs.train", fake)
    monkeypatch.setattr("qwenvl_train.verbs.train", fake, raising=False)
    return calls


def fail_with(monkeypatch, error: BaseException) -> None:
    def run(composed):
        raise error

    fake = SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "qwenvl_train.verbs.train", fake)
    monkeypatch.setattr("qwenvl_train.verbs.train", fake, raising=False)


@pytest.mark.parametrize(
    "words",
    [
        ["train", LORA, "seed=7"],
        [LORA, "seed=7"],
        ["--local_rank=1", "train", LORA, "seed=7"],
        [LORA, "seed=7", "--local-rank=0"],
    ],
)
def test_train_is_the_default_verb(words, trained):
    assert cli.main(words) == 0
    (composed,) = trained
    assert (composed.recipe, composed.config.seed) == ("sft_lora", 7)


def test_arguments_come_from_the_command_line(trained, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["qwenvl-train", LORA])
    assert cli.main() == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trainn"],
            "trainn: there is no such verb; did you mean train? Verbs: train, convert, inspect, eval, sample, plan, "
            "filter, export, chat, dashboard, report, compare, watch, help",
        ),
        (["sft_lora"], "did you mean +recipe=sft_lora?"),
        (["--foo"], "--foo: there is no such flag"),
        ([], "no component is trained; choose a recipe"),
        ([LORA, "train.lrr=1", "seed=x"], "2 problems\n  seed=x: must be a whole number\n  train.lrr=1: there is"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_2(words, message, trained, capsys):
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("qwenvl-train: ")
    assert message in err
    assert trained == []


def test_a_users_mistake_found_by_the_verb_is_exit_2(monkeypatch, capsys):
    fail_with(monkeypatch, UserError("my.jsonl:3: no such picture"))
    assert cli.main([LORA]) == 2
    assert capsys.readouterr().err == "qwenvl-train: my.jsonl:3: no such picture\n"


def test_of_several_processes_the_first_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["trainn"]) == 2
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_one_sentence(monkeypatch, capsys):
    fail_with(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "/cache/lengths.npy"))
    assert cli.main([LORA]) == 2
    told = capsys.readouterr().err
    assert told.startswith("qwenvl-train: the disk is full: ")
    assert told.count("\n") == 1
    assert "/cache/lengths.npy" in told


def test_our_own_fault_keeps_its_traceback(monkeypatch):
    fail_with(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main([LORA])


def test_an_interrupted_run_is_exit_130(monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert cli.main([LORA]) == 130


def test_a_verbs_own_exit_passes(monkeypatch):
    fail_with(monkeypatch, SystemExit(143))
    with pytest.raises(SystemExit) as exit_:
        cli.main([LORA])
    assert exit_.value.code == 143


def test_environment_is_prepared_and_the_users_stays(trained, monkeypatch):
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    cli.main([LORA])
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


@pytest.mark.parametrize("words", [["help"], ["-h"], ["--help"], ["train", "--help"], [LORA, "-h"]])
def test_help_lists_verbs_recipes_and_groups(words, capsys):
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    for name in [
        "train",
        "inspect",
        "plan",
        *recipe_files(),
        *groups(),
        "qwen3_vl_235b_a22b",
        "train.yaml",
        "Exit codes",
    ]:
        assert name in out


@pytest.mark.parametrize("verb", [name for name in VERBS if name != "train"])
def test_the_help_of_a_verb_has_its_settings(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"qwenvl-train {verb}: ")
    settings = yaml.safe_load((asset_dir("configs") / f"{verb}.yaml").read_text())
    for name in settings.keys() - {"defaults"}:
        assert f"\n{name}:" in out
    assert "defaults:" not in out
    for name in settings.get(verb, {}):
        assert f"  {name}:" in out


def test_the_help_of_a_verb_on_folders_has_its_settings(capsys):
    assert cli.main(["help", "watch"]) == 0
    assert "  qwenvl-train watch runs/mine [port=…]\n" in capsys.readouterr().out


def test_help_fits_into_the_columns_of_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # The path of the package may be longer than a line.
    assert max(len(line) for line in lines if "train.yaml" not in line) <= 80
    assert any(line.endswith(" \\") for line in lines)


def test_a_terminal_without_unicode_gets_ascii():
    command = [sys.executable, "-m", "qwenvl_train"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    told = subprocess.run([*command, "--help"], env=environment, capture_output=True, check=True).stdout
    assert told.isascii()
    assert b"[key=value ...]" in told
    done = subprocess.run([*command, "träin"], env=environment, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"qwenvl-train: tr\\xe4in: there is no such verb")


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"qwenvl-train {__version__}\n"


def test_help_answers_within_a_second():
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "qwenvl_train", "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 1


def test_help_imports_neither_torch_nor_hydra():
    code = (
        "import sys; from qwenvl_train.cli import main; main(['--help']);"
        "sys.exit(bool({'torch', 'transformers', 'hydra', 'omegaconf', 'pydantic'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_the_module_exits_with_the_code_of_main():
    done = subprocess.run([sys.executable, "-m", "qwenvl_train", "trainn"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_sentence_is_found_below_a_worker_s_traceback():
    wrapped = (
        "Caught TooLong in DataLoader worker process 0.\nTraceback …\nqwenvl_train.data.lengths.TooLong: a.jsonl:3 is"
    )
    assert message_of(UserError(wrapped)) == "a.jsonl:3 is"
    assert message_of(UserError("a.jsonl:3 is")) == "a.jsonl:3 is"
