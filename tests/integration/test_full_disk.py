"""A disk that fills up leaves the last checkpoint whole, and the run goes on from it when there is room again."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwenvl_train.cli import main
from qwenvl_train.training.checksums import damage
from qwenvl_train.training.trainer import VisionTrainer
from tests.commands import rows, summary, train
from tests.conftest import conversation


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk of our own here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("noticed", [pytest.param("before the save", marks=pytest.mark.nightly), "in the middle of it"])
def test_the_last_checkpoint_outlives_a_full_disk(
    noticed, small_disk, write_rows, checkpoints, pictures, tmp_path, capsys, monkeypatch
):
    asked = [conversation(("user", [pictures[0], f"What? {index}"]), ("assistant", ["Red."])) for index in range(6)]
    settings = (
        "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={write_rows(asked)}",
        "data.packing=false", "data.workers=0", "train.accumulation=1", "train.max_steps=6", "train.save_steps=2",
        "train.log_steps=1", "train.keep=1", "train.warmup=0", f"data.cache={tmp_path / 'cache'}",
    )  # fmt: skip
    whole, filler, check = train(tmp_path / "whole", *settings), small_disk / "filler", VisionTrainer._refuse_full_disk

    def fill(trainer: VisionTrainer) -> None:
        if trainer.state.global_step == 4 and not filler.exists():
            filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 2**20))
            if noticed == "in the middle of it":
                return
        check(trainer)

    monkeypatch.setattr(VisionTrainer, "_refuse_full_disk", fill)
    where = (f"output_dir={small_disk}", "run_name=run", "logging.wandb.mode=disabled")
    assert main([*settings, *where]) == 2
    err = capsys.readouterr().err
    expected = "There is no room for the next checkpoint" if noticed == "before the save" else "the disk is full"
    assert expected in err
    assert "run_name=run" in err
    checkpoint = small_disk / "run" / "checkpoints" / "step-2"
    assert damage(checkpoint) is None
    assert [path.name for path in checkpoint.parent.iterdir()] == ["step-2"]
    assert summary(small_disk / "run")["status"] == "failed"
    filler.write_bytes(b"")
    run = train(small_disk, *settings)
    assert [(row["step"], row["loss"]) for row in rows(run)] == [(row["step"], row["loss"]) for row in rows(whole)]
