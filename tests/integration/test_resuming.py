"""What a resumed run counts, and what it tells where it cannot go on; its curve is held in training/test_invariance."""

import json
import shutil

import pytest
import yaml

from qwenvl_train.cli import main
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
    load, start, came = VisionTrainer._load_from_checkpoint, Meter.start, []

    def load_and_tell(self, *arguments):
        load(self, *arguments)
        came.append("loaded")

    def start_and_tell(self):
        start(self)
        came.append("started")

    monkeypatch.setattr(VisionTrainer, "_load_from_checkpoint", load_and_tell)
    monkeypatch.setattr(Meter, "start", start_and_tell)
    train(tmp_path, *settings)
    assert came.count("loaded") == 1
    assert came[-1] == "started"
    assert [row["step"] for row in rows(folder)] == [1, 2]


def test_a_resumed_run_that_cannot_load_tells_its_own_reason(halfway, tmp_path):
    folder, settings = halfway
    weights = folder / "checkpoints" / "step-1" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(Exception, match="header") as caught:
        train(tmp_path, *settings)
    told = summary(folder)
    assert (told["status"], told["reason"]) == ("failed", repr(caught.value))
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
    assert "train.compile was False, is True" in capsys.readouterr().err
    train(tmp_path, *settings)
    assert summary(folder)["status"] == "done"
    assert [row["step"] for row in rows(folder)] == [1, 2]
    assert json.loads((folder / "environment.json").read_text())["run"]["train.accumulation"] == 3
