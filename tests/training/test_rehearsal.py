"""With train.rehearse, the largest micro-batches are computed before the first step, and nothing else changes."""

import torch

from qwenvl_train.cli import main
from tests.commands import rows, train
from tests.conftest import conversation

SETTINGS = (
    "+recipe=sft_lora", "lora.dropout=0.2", "data.packing=false", "data.workers=0", "train.accumulation=2",
    "train.log_steps=1", "train.max_steps=4", "train.save_steps=2", "train.lr=1e-3",
)  # fmt: skip
KEYS = ("step", "loss", "grad_norm", "entropy", "mean_token_accuracy", "tokens")


def data_of(write_rows, pictures):
    answers = ("Red.", "A red ring " * 9, "No", "Blue.")
    return write_rows(
        [
            conversation(("user", [pictures[number], "What?"]), ("assistant", [answer]), id=str(number))
            for number, answer in enumerate(answers)
        ]
    )


def test_a_rehearsal_changes_nothing(write_rows, pictures, checkpoints, tmp_path, capsys):
    settings = (*SETTINGS, f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={data_of(write_rows, pictures)}")
    without = train(tmp_path, *settings, name="without")
    assert "rehearsed" not in capsys.readouterr().out
    run = train(tmp_path, *settings, "train.rehearse=true")
    told = capsys.readouterr().out
    (line,) = (line for line in told.splitlines() if line.startswith("rehearsed: "))
    assert line.count(" tokens with ") == 2  # the longest answer is not about the largest picture
    curves = [[[row[key] for key in KEYS] for row in rows(folder)] for folder in (run, without)]
    assert curves[0] == curves[1]
    middle = run / "checkpoints" / "step-2"
    resumed = train(tmp_path, *settings, "train.rehearse=true", f"train.resume={middle}", name="resumed")
    assert [[row[key] for key in KEYS] for row in rows(resumed)] == curves[1][2:]


def test_memory_that_runs_out_in_the_rehearsal(write_rows, pictures, checkpoints, tmp_path, capsys, monkeypatch):
    def fails(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(torch.Tensor, "backward", fails)
    data = data_of(write_rows, pictures)
    where = (f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={data}", f"output_dir={tmp_path}")
    assert main([*SETTINGS, *where, "train.rehearse=true", "logging.wandb.mode=disabled"]) == 2
    told = capsys.readouterr().err
    assert "Memory ran out in the rehearsal of the largest micro-batch with " in told
    assert f": {data}:2. (CUDA out of memory. Tried to allocate 2.00 GiB.) " in told


def test_the_lengths_of_a_stream_are_not_known(tmp_path, capsys):
    assert main([*SETTINGS[:1], "data.streaming=true", "train.rehearse=true", "train.max_steps=2"]) == 2
    assert "the lengths of rows are not known in advance" in capsys.readouterr().err
