"""Memory that runs out: one sentence names the micro-batch, and a command that finds the cheapest change."""

import shlex

import pytest
import torch

from qwenvl_train.cli import main
from tests.commands import summary
from tests.conftest import conversation

TORCHS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.70 GiB of which 1.20 GiB is "
    "free. 20.10 GiB is allocated by PyTorch. If reserved but unallocated memory is large try setting this and that."
)


@pytest.fixture
def small_device(monkeypatch):
    """A device on which the third micro-batch of the run is too large."""
    passes = []
    backward = torch.Tensor.backward

    def fails(*arguments, **keywords):
        passes.append(1)
        if len(passes) == 3:
            raise torch.OutOfMemoryError(TORCHS)
        return backward(*arguments, **keywords)

    monkeypatch.setattr(torch.Tensor, "backward", fails)


def test_memory_that_runs_out_names_its_micro_batch(small_device, write_rows, pictures, checkpoints, tmp_path, capsys):
    rows = [
        conversation(("user", [pictures[0], "What?"]), ("assistant", [answer])) for answer in ("Red.", "A ring.", "No")
    ]
    data = write_rows(rows)
    settings = (
        "tune_mm_mlp=true", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={data}", "data.packing=false",
        "train.batch_size=2", "train.accumulation=2", "train.max_steps=3", "data.workers=0", f"output_dir={tmp_path}",
        "run_name=run", "logging.wandb.mode=disabled",
    )  # fmt: skip
    assert main(list(settings)) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "Memory ran out in step 2, at micro-batch 1 of 2 with " in told
    assert " tokens and 72 patches: " in told
    assert told.count(f"{data}:") == 2
    assert "1.20 GiB is free. 20.10 GiB is allocated by PyTorch.)" in told
    assert "this and that" not in told
    assert summary(tmp_path / "run")["status"] == "failed"
    command = shlex.split(told.partition("that makes the run fit: ")[2])
    assert command[:2] == ["qwenvl-train", "plan"]
    assert main(command[1:]) == 0
    assert "memory" in capsys.readouterr().out
