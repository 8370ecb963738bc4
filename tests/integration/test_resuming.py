"""What a resumed run counts, and what it tells where it cannot go on; its curve is held in training/test_invariance."""

import json
import logging
import re
import shutil
import warnings

import pytest
import yaml

from qwenvl_train.cli import main
from qwenvl_train.reporting.recorded import read_run
from qwenvl_train.training.checksums import CHECKSUMS
from qwenvl_train.training.meter import Meter
from qwenvl_train.training.trainer import VisionTrainer
from tests.commands import rows, summary, train
from tests.conftest import conversation


@pytest.fixture
def halfway(pictures, write_rows, checkpoints, tmp_path):
    """A run that was killed after the first of its two steps, and the settings to go on with."""
    sample = conversation(("user", [pictures[0], "What?"]), ("assistant", ["Red."]))
    settings = (
        "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={write_rows([sample])}",
        "data.packing=false", "data.workers=0", "train.max_steps=2", "train.save_steps=1", "train.log_steps=1",
        "train.warmup=0",
    )  # fmt: skip
    folder = train(tmp_path, *settings)
    shutil.rmtree(folder / "checkpoints" / "step-2")
    return folder, settings


def test_the_clock_of_a_resumed_run_starts_after_loading(halfway, tmp_path, monkeypatch):
    folder, settings = halfway
    load, start, came, summaries = VisionTrainer._load_from_checkpoint, Meter.start, [], []

    def load_and_tell(self, *arguments):
        load(self, *arguments)
        came.append("loaded")

    def start_and_tell(self):
        start(self)
        came.append("started")
        summaries.append((folder / "summary.json").exists())

    monkeypatch.setattr(VisionTrainer, "_load_from_checkpoint", load_and_tell)
    monkeypatch.setattr(Meter, "start", start_and_tell)
    train(tmp_path, *settings)
    assert came.count("loaded") == 1
    assert came[-1] == "started"
    assert summaries[-1] is False  # that of the run as it ended before is gone
    assert [row["step"] for row in rows(folder)] == [1, 2]
    assert read_run(folder).resumed_at == [1]


def test_the_log_has_what_libraries_say_and_the_terminal_does_not(halfway, tmp_path, monkeypatch, capfd):
    folder, settings = halfway
    capfd.readouterr()
    start = Meter.start

    def start_and_warn(self):
        logging.getLogger("transformers.modeling_utils").warning("some weights are new")
        warnings.warn("a slow kernel is used", stacklevel=1)
        start(self)

    monkeypatch.setattr(Meter, "start", start_and_warn)
    transformers = logging.getLogger("transformers")
    level = transformers.level
    transformers.setLevel(logging.WARNING)  # another test may have started a verb that hides warnings
    train(tmp_path, *settings)
    transformers.setLevel(level)
    printed = capfd.readouterr()
    assert printed.err == ""
    told = (folder / "log.txt").read_text(encoding="utf-8")
    assert told.count(" INFO qwenvl_train: started: ") == 2
    for line in printed.out.splitlines():
        assert f" rank 0 INFO qwenvl_train: {line}\n" in told
    assert f"run resumes from {folder / 'checkpoints' / 'step-1'}, step 1 of 2" in printed.out
    assert re.search(r"(?m)^[\d-]{10} [\d:]{8} rank 0 WARNING transformers.modeling_utils: some weights are new$", told)
    assert re.search(r"(?m) rank 0 WARNING py.warnings: .+: UserWarning: a slow kernel is used$", told)


def test_a_resumed_run_that_cannot_load_tells_its_own_reason(halfway, tmp_path):
    folder, settings = halfway
    weights = folder / "checkpoints" / "step-1" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    (weights.parent / CHECKSUMS).unlink()
    with pytest.raises(Exception, match="header") as caught:
        train(tmp_path, *settings)
    told = summary(folder)
    assert (told["status"], told["reason"]) == ("failed", repr(caught.value))
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert "CRITICAL qwenvl_train: the run has failed\nTraceback (most recent call last):\n" in log
    assert str(caught.value) in log.splitlines()[-1]
    stored = json.loads((folder / "checkpoints" / "step-1" / "progress.json").read_text())
    assert (told["steps"], told["samples"]) == (1, stored["counts"]["samples"])


def test_a_run_of_a_version_that_had_fewer_settings_goes_on(halfway, tmp_path, capsys):
    """As it was: what it did not know had no other value than the default."""
    folder, settings = halfway
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    del stored["method"], stored["dpo"], stored["train"]["compile"], stored["data"]["pack_length"]
    stored["train"]["accumulation"] = 3  # auto would be 1 for this sample
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["run"].pop("train.accumulation") == 1
    del environment["run"]["data.pack_length"]
    (folder / "environment.json").write_text(json.dumps(environment))
    stored |= {"output": "json", "inspect": {"samples": 7}, "plan": {"devices": 8}}  # as it stored those of all verbs
    (folder / "config.yaml").write_text(yaml.safe_dump(stored))
    where = (f"output_dir={tmp_path}", "run_name=run", "logging.wandb.mode=disabled")
    assert main([*settings, *where, "train.compile=true"]) == 2
    assert "train.compile was false, is true" in capsys.readouterr().err
    train(tmp_path, *settings)
    assert summary(folder)["status"] == "done"
    assert [row["step"] for row in rows(folder)] == [1, 2]
    assert json.loads((folder / "environment.json").read_text())["run"]["train.accumulation"] == 3


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(halfway, tmp_path, capsys):
    folder, settings = halfway
    train(tmp_path, *settings)
    newest = folder / "checkpoints" / "step-2"
    stored = (newest / "optimizer.pt").read_bytes()
    first = rows(folder)
    (newest / "optimizer.pt").write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    capsys.readouterr()
    train(tmp_path, *settings)
    told = capsys.readouterr().out
    fault = "step-2: the content of optimizer.pt is not that of its checksum; the run resumes from step-1"
    assert f"damaged checkpoints are left out, and are now called damaged-step-N: {fault}" in told
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"step-1", "step-2", "damaged-step-2"}
    assert [(row["step"], row["loss"]) for row in rows(folder)] == [(row["step"], row["loss"]) for row in first]
    for name in ("step-1", "step-2"):
        (folder / "checkpoints" / name / "optimizer.pt").write_bytes(b"")
    where = (f"output_dir={tmp_path}", "run_name=run", "logging.wandb.mode=disabled")
    assert main([*settings, *where]) == 2
    assert "every checkpoint is damaged (step-2: the content of optimizer.pt" in capsys.readouterr().err
    chosen = f"train.resume={folder / 'checkpoints' / 'step-2'}"
    assert main([*settings, *where, chosen]) == 2
    assert "step-2 is damaged: the content of optimizer.pt is not" in capsys.readouterr().err


def test_intervals_may_change(halfway, tmp_path, capfd):
    """Steps 1 and 2 were to be logged and saved one by one, and now there is one checkpoint after four steps."""
    folder, settings = halfway
    longer = [word for word in settings if "max_steps" not in word and "_steps" not in word] + ["train.max_steps=2"]
    train(tmp_path, *longer, "train.save_steps=5", "train.log_steps=2")
    assert [row["step"] for row in rows(folder)] == [1, 2]
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"step-1", "step-2"}
    state = json.loads((folder / "checkpoints" / "step-2" / "trainer_state.json").read_text())
    assert (state["save_steps"], state["logging_steps"]) == (5, 2)
    assert "do not match" not in capfd.readouterr().err


def test_a_run_saves_by_time(halfway, tmp_path):
    _, settings = halfway
    words = [word for word in settings if "save_steps" not in word]
    by_steps = ("train.save_steps=null", "train.keep=null")
    for name, more, expected in (
        ("plain", (), {"step-2"}),
        ("timed", ("train.save_minutes=1e-6",), {"step-1", "step-2"}),
    ):
        run = train(tmp_path, *words, *by_steps, *more, name=name)
        assert {path.name for path in (run / "checkpoints").iterdir()} == expected
