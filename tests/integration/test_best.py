"""The best checkpoint stays on disk, and a save without room ends the run with one sentence."""

import json
import shutil
from pathlib import Path

import pytest

from qwenvl_train.cli import main
from qwenvl_train.training import disk_space
from tests.commands import summary, train
from tests.conftest import conversation


@pytest.fixture
def settings(pictures, write_rows, checkpoints) -> tuple[str, ...]:
    """A run of three steps. The first one has a learning rate of 0, and the others make the model worse."""
    rows = write_rows([conversation(("user", [pictures[0], "What?"]), ("assistant", ["Red."]))])
    return (
        "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={rows}", f"data.eval={rows}",
        "data.packing=false", "data.workers=0", "train.max_steps=3", "train.save_steps=1", "train.eval_steps=1",
        "train.accumulation=1", "train.lr=1", "train.lr_mlp=1", "train.warmup=1", "train.keep=1",
        "logging.predictions=0",
    )  # fmt: skip


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_best_checkpoint_stays_also_after_a_resume(settings, tmp_path, capsys):
    folder = train(tmp_path, *settings)
    assert kept(folder) == ["step-1", "step-3"]
    best = summary(folder)["best"]
    assert (best["metric"], Path(best["checkpoint"])) == ("eval_loss", folder / "checkpoints" / "step-1")
    stored = json.loads((folder / "checkpoints" / "step-1" / "evaluation.json").read_text())
    assert best["step"] == 1
    assert best["eval_loss"] == stored["eval_loss"] == summary(folder)["metrics"]["before"]["eval_loss"]
    assert f"best        {best['checkpoint']} (held-out loss {best['eval_loss']:.4f})\n" in capsys.readouterr().out
    card = (folder / "checkpoints" / "step-3" / "README.md").read_text()
    assert "after 3 of 3 steps of supervised fine-tuning of " in card
    assert "Needed" not in card

    shutil.rmtree(folder / "checkpoints" / "step-3")  # as if it had been killed before
    train(tmp_path, *settings)
    assert kept(folder) == ["step-1", "step-3"]
    assert summary(folder)["best"] == best


def test_a_save_without_room_ends_the_run_in_one_sentence(settings, tmp_path, capsys, monkeypatch):
    free = iter([10**9, 10**9])  # before the run and before the first save
    monkeypatch.setattr(disk_space, "free_bytes", lambda _: next(free, 1000))
    where = (f"output_dir={tmp_path}", "run_name=run", "logging.wandb.mode=disabled")
    assert main([*settings, *where]) == 2
    told = capsys.readouterr().err
    assert "There is no room for the next checkpoint: it needs about " in told
    assert "The run ends here, and its last checkpoint is step-1." in told
    assert kept(tmp_path / "run") == ["step-1"]
    assert summary(tmp_path / "run")["status"] == "failed"
    assert not (tmp_path / "run" / ".lock").exists()
