"""Checkpoints are published beside training: it goes on in the meantime, and an error ends it."""

import errno
from threading import Event

import pytest

from qwenvl_train.cli import main
from qwenvl_train.errors import UserError
from qwenvl_train.step_folders import saved, step_of
from qwenvl_train.training import checkpoint
from tests.commands import QUIET, rows, summary, train
from tests.conftest import conversation

SECONDS = 120


@pytest.fixture
def settings(write_rows, checkpoints) -> list[str]:
    data = write_rows([conversation(("user", [f"What? {index}"]), ("assistant", ["Red."])) for index in range(8)])
    return [
        f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={data}", "data.workers=0", "tune_mm_mlp=true",
        "train.max_steps=6", "train.accumulation=1", "train.log_steps=1", "train.save_steps=2", QUIET,
        "logging.wandb.mode=disabled",
    ]  # fmt: skip


def test_training_goes_on_while_a_checkpoint_is_published(settings, tmp_path, monkeypatch):
    """Publishing the first checkpoint does not end before the step after it has been logged."""
    folder, publish, waited = tmp_path / "run", checkpoint.publish, []

    def late(written, *others):
        if written.name == "checkpoint-2":
            later = Event()
            for _ in range(10 * SECONDS):
                if rows(folder)[-1]["step"] > 2:
                    break
                later.wait(0.1)
            waited.append(rows(folder)[-1]["step"])
            assert not saved(folder / "checkpoints")
        return publish(written, *others)

    monkeypatch.setattr(checkpoint, "publish", late)
    train(tmp_path, *settings, name="run")
    assert waited[0] > 2
    assert [step_of(path) for path in saved(folder / "checkpoints")] == [2, 4, 6]
    assert summary(folder)["checkpoint"].endswith("step-6")
    assert [row["step"] for row in rows(folder) if row.get("save_seconds")] == [3, 5]


def test_a_disk_that_is_full_when_files_are_synced_ends_the_run(settings, tmp_path, monkeypatch, capsys):
    folder, publish = tmp_path / "run", checkpoint.publish

    def full(written, *others):
        if written.name == "checkpoint-4":
            raise OSError(errno.ENOSPC, "No space left on device")
        return publish(written, *others)

    monkeypatch.setattr(checkpoint, "publish", full)
    assert main([*settings, f"output_dir={tmp_path}", "run_name=run"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert summary(folder)["status"] == "failed"
    assert summary(folder)["checkpoint"].endswith("step-2")
    assert [step_of(path) for path in saved(folder / "checkpoints")] == [2]
    assert not (folder / ".staging").exists()


def test_an_error_of_a_run_does_not_lose_the_checkpoint_that_is_being_published(settings, tmp_path, monkeypatch):
    folder, publish, failed = tmp_path / "run", checkpoint.publish, Event()

    def late(*arguments):
        assert failed.wait(SECONDS)
        return publish(*arguments)

    def fail(publisher):
        if publisher._pending is not None:
            failed.set()
            raise UserError("Enough.")

    monkeypatch.setattr(checkpoint, "publish", late)
    monkeypatch.setattr(checkpoint.CheckpointPublisher, "check", fail)
    assert main([*settings, f"output_dir={tmp_path}", "run_name=run"]) == 2
    assert summary(folder)["checkpoint"].endswith("step-2")
    assert (folder / "checkpoints" / "step-2" / "SHA256SUMS").is_file()


def test_a_checkpoint_that_cannot_be_deleted_does_not_end_the_run(settings, tmp_path, monkeypatch):
    """As on a network disk where its files are still open. It is no checkpoint any more."""
    rmtree, refused = checkpoint.shutil.rmtree, []

    def refuse(path, *arguments, **keywords):
        if "discarded" in str(path):
            refused.append(path)
            if not keywords.get("ignore_errors"):
                raise OSError(errno.ENOTEMPTY, "Directory not empty")
            return
        rmtree(path, *arguments, **keywords)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", refuse)
    folder = train(tmp_path, *settings, "train.keep=1", name="run")
    assert [path.name for path in refused] == ["discarded-step-2", "discarded-step-4"]
    assert [step_of(path) for path in saved(folder / "checkpoints")] == [6]
