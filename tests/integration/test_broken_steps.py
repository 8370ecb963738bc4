"""A step whose loss or gradient is not a number: it changes nothing, its samples are named, and one command repeats
it."""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qwenvl_train.cli import main
from qwenvl_train.training import trainer
from tests.broken import WORD, write_broken_model
from tests.commands import read_lines, rows, summary, train
from tests.conftest import conversation

ANSWERS = ("Red.", "A ring.", "No", "Blue.", f"A{WORD}.", "Left.")
SHORT = (
    "tune_mm_mlp=true", "data.packing=false", "data.workers=0", "train.accumulation=2", "train.log_steps=1",
    "train.warmup=0", "train.lr=1e-3", "train.schedule=constant", "train.max_steps=6", "train.save_steps=1",
    "train.keep=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(checkpoints, tmp_path_factory) -> Path:
    return write_broken_model(checkpoints["qwen2_5_vl"], tmp_path_factory.mktemp("broken"))


@pytest.fixture
def data(write_rows, pictures) -> Path:
    return write_rows(
        [
            conversation(("user", [pictures[number % 4], "What?"]), ("assistant", [answer]), id=f"row {number}")
            for number, answer in enumerate(ANSWERS)
        ]
    )


def failing(output: Path, *settings: str) -> Path:
    where = () if any(word.startswith("+recipe=") for word in settings) else ("run_name=run",)
    assert main([*settings, *where, f"output_dir={output}", "logging.wandb.mode=disabled"]) == 2
    return output / "run"


def state(folder: Path, step: int) -> tuple[dict, dict]:
    """The weights and the optimizer's state in a checkpoint."""
    checkpoint = folder / "checkpoints" / f"step-{step}"
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    moments = {(key, name): value for key, its in optimizer.items() for name, value in its.items()}
    return load_file(checkpoint / "model.safetensors"), moments


def test_a_broken_step_ends_the_run_and_one_command_repeats_it(model, data, tmp_path, capsys):
    run = failing(tmp_path, *SHORT, "seed=4", f"model.path={model}", f"data.train={data}")
    told = capsys.readouterr().err
    found = summary(run)
    step, name = found["steps"], f"{data}:5 (id row 4)"
    assert f"step {step}: the loss is not a number; micro-batch " in told
    assert f" of process 0 has {name}. To repeat it: " in told
    assert told.count("(id ") == 1
    assert found["status"] == "failed"
    assert found["reason"] in told
    assert not (run / "checkpoints" / f"step-{step}").exists()
    assert all(row["loss"] is not None for row in rows(run))
    dump = run / "nan" / f"step-{step}"
    before, dumped = state(run, step - 1)[0], load_file(dump / "weights" / "model.safetensors")
    assert all(torch.equal(before[key], dumped[key]) for key in before if not before[key].isnan().any())
    command = found["reason"].partition("qwenvl-train ")[2].partition(". ")[0].split()
    assert command == [f"+recipe={dump / 'recipe.yaml'}"]
    failing(tmp_path / "again", *command)
    told = capsys.readouterr().err
    copy = f"{dump / 'messages.jsonl'}:1 (id row 4)"
    assert f"step 1: the loss is not a number; micro-batch 1 of process 0 has {copy}." in told


@pytest.mark.parametrize("fused", [False, True])
def test_skipped_steps_change_nothing(fused, model, data, tmp_path, capsys, monkeypatch):
    """Also as on a GPU, where the fused optimizer leaves out the step on the device."""
    if fused:
        monkeypatch.setattr(torch.optim, "AdamW", partial(torch.optim.AdamW, fused=True))
        monkeypatch.setattr(trainer, "build_optimizer", lambda groups, _: torch.optim.AdamW(groups, weight_decay=0.1))
    run = train(tmp_path, *SHORT, f"model.path={model}", f"data.train={data}", "train.on_nan=skip")
    logged = rows(run)
    broken = [row["step"] for row in logged if row["loss"] is None]
    assert len(broken) == 2  # each epoch has it once
    assert [row.get("skipped_steps", 0) for row in logged] == [
        sum(step <= row["step"] for step in broken) for row in logged
    ]
    assert summary(run)["skipped_steps"] == 2
    told = capsys.readouterr().out
    assert told.count("The step is skipped.") == told.count(f"{data}:5 (id row 4)") == 2
    same, changed = ([step for step in range(2, 7) if (step in broken) == it] for it in (True, False))
    for step in same:
        for before, after in zip(state(run, step - 1), state(run, step), strict=True):
            assert all(torch.equal(before[key], after[key]) or before[key].isnan().any() for key in before)
    for step in changed:
        before, after = state(run, step - 1)[0], state(run, step)[0]
        assert any(not torch.equal(before[key], after[key]) for key in before if not before[key].isnan().any())


def test_many_broken_steps_in_a_row_end_the_run(checkpoints, data, tmp_path, capsys):
    """After the first step, no weight is a number that can be computed with."""
    settings = [word for word in SHORT if "lr=" not in word and "save_steps" not in word and "max_steps" not in word]
    settings += ["train.lr=1e30", "train.max_steps=20", "train.on_nan=skip", f"model.path={checkpoints['qwen2_vl']}"]
    run = failing(tmp_path, *settings, f"data.train={data}")
    assert "This was the last of 10 such steps in a row" in capsys.readouterr().err
    assert summary(run)["steps"] == 11
    assert not (run / "checkpoints").exists()


def test_the_rows_of_a_stream_are_copied_too(model, data, tmp_path, capsys):
    settings = (*SHORT[:3], "data.streaming=true", "train.accumulation=6", "train.max_steps=2", "train.warmup=0")
    run = failing(tmp_path, *settings, f"model.path={model}", f"data.train={data}")
    assert f"{data}:5 (id row 4). To repeat it: " in capsys.readouterr().err
    assert [row["id"] for row in read_lines(run / "nan" / "step-1" / "messages.jsonl")] == ["row 4"]
