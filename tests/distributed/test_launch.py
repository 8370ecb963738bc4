"""Two processes, by the launchers that README names, share one process's trajectory: same samples, same loss.

The rows mix text and pictures so that one process often has pictures where the other has none.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText

from tests.conftest import conversation
from tests.run import read_lines, rows, summary, train

pytestmark = pytest.mark.distributed

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "deepspeed": ("deepspeed", "--num_accelerators", "2", "--no_local_rank", "--module"),
    "torchrun": ("torchrun", "--nproc_per_node", "2", "-m"),
}
CASES = {
    "zero2 full": ("deepspeed", "sft_full", "zero2", "qwen3_vl"),
    "zero3 full": ("deepspeed", "sft_full", "zero3", "qwen2_5_vl"),
    "zero3 lora": ("deepspeed", "sft_lora", "zero3", "qwen2_5_vl"),
    "ddp lora": ("torchrun", "sft_lora", "none", "qwen3_vl_moe"),
}


@pytest.fixture
def mixed(pictures, write_rows):
    answers = ["Red.", "A red circle " * 12, "No", "The ring is left of the square. " * 3] * 4
    return write_rows(
        [
            conversation(
                ("user", [pictures[index % 4], f"What is it? {index}"] if index % 4 > 1 else [f"Who? {index}"]),
                ("assistant", [answer]),
                id=str(index),
            )
            for index, answer in enumerate(answers)
        ]
    )


def launch(launcher: str, output: Path, *settings: str, fails: bool = False) -> str:
    """What it said on stderr."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program, *options = LAUNCHERS[launcher]
    where = (f"output_dir={output}", "run_name=run", "logging.wandb.mode=disabled")
    done = subprocess.run(
        [str(BIN / program), f"--master_port={port}", *options, "qwenvl_train", *settings, *where],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode != 0) == fails, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stderr


def figures(folder: Path) -> list[tuple]:
    return [(row["step"], row["samples"], row["tokens"], row["loss"], row["grad_norm"]) for row in rows(folder)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case, mixed, checkpoints, tmp_path):
    launcher, recipe, stage, model_type = CASES[case]
    common = (
        f"+recipe={recipe}", f"model.path={checkpoints[model_type]}", f"data.train={mixed}", f"data.eval={mixed}",
        "data.packing=false", "data.workers=0", "train.accumulation=2", "train.max_steps=4", "train.save_steps=2",
        "train.log_steps=1",
        "train.lr=1e-3", "train.lr_mlp=1e-3", "train.warmup=0", "train.eval_batch_size=3", "logging.predictions=1",
    )  # fmt: skip
    one = train(tmp_path / "one", *common, "train.batch_size=4")
    two = tmp_path / "two" / "run"
    settings = (*common, "train.batch_size=2", f"deepspeed={stage}")
    launch(launcher, tmp_path / "two", *settings)
    assert_same_curve(figures(two), figures(one))
    for mine, theirs in zip(rows(two, "eval_loss"), rows(one, "eval_loss"), strict=True):
        assert mine["eval_samples"] == theirs["eval_samples"] == 16
        assert mine["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-5)  # measured 3.3e-8
    assert summary(two)["status"] == "done"
    AutoModelForImageTextToText.from_pretrained(two / "checkpoints" / "step-4")

    # Killed after step 2, it goes on to the same end.
    shutil.rmtree(two / "checkpoints" / "step-4")
    before = figures(two)
    launch(launcher, tmp_path / "two", *settings)
    assert_same_curve(figures(two), before)


def assert_same_curve(mine: list[tuple], theirs: list[tuple]) -> None:
    assert [row[:3] for row in mine] == [row[:3] for row in theirs]
    for (*_, loss, norm), (*_, other_loss, other_norm) in zip(mine, theirs, strict=True):
        # Measured worst case over the four: loss 1.6e-7, norm 1.5e-6
        assert loss == pytest.approx(other_loss, rel=1e-5)
        assert norm == pytest.approx(other_norm, rel=1e-4)


@pytest.mark.parametrize(("launcher", "stage"), [("torchrun", "none"), ("deepspeed", "zero3")])
def test_two_processes_store_features_together(launcher, stage, mixed, checkpoints, tmp_path):
    common = (
        "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={mixed}", f"data.eval={mixed}",
        "data.packing=false", "data.workers=0", "train.accumulation=2", "train.max_steps=4", "train.log_steps=1",
        "train.warmup=0", "train.eval_batch_size=3", "logging.predictions=1",
    )  # fmt: skip
    one = train(tmp_path / "one", *common, "train.batch_size=4")
    stored = ("train.cache_vision=true", f"data.cache={tmp_path / 'cache'}")
    launch(launcher, tmp_path / "two", *common, "train.batch_size=2", f"deepspeed={stage}", *stored)
    assert_same_curve(figures(tmp_path / "two" / "run"), figures(one))
    # Each of the two pictures that eight samples ask about.
    assert len([path for path in (tmp_path / "cache" / "vision").rglob("*") if path.is_file()]) == 2


PREFERRING = {
    "zero3, a sharded copy": ("deepspeed", "dpo_full", "zero3", "qwen2_5_vl", "model"),
    "zero2, without its adapters": ("deepspeed", "dpo_lora", "zero2", "qwen3_vl", "adapter"),
    "ddp, stored": ("torchrun", "mpo_lora", "none", "qwen3_vl_moe", "cached"),
}


@pytest.mark.parametrize("case", PREFERRING)
def test_two_processes_prefer_as_one(case, pictures, write_rows, checkpoints, tmp_path):
    launcher, recipe, stage, model_type, reference = PREFERRING[case]
    answers = ["Red.", "A red circle " * 6, "No", "It is the ring. " * 3] * 4
    asked = [
        {"prompt": f"<image>What? {index}", "images": [str(pictures[index % 4])]} if index % 4 > 1 else {"prompt": "?"}
        for index in range(16)
    ]
    pairs = [
        asked[index] | {"chosen": answer, "rejected": answers[-index - 1] + "?", "id": str(index)}
        for index, answer in enumerate(answers)
    ]
    file = write_rows(pairs)
    common = (
        f"+recipe={recipe}", f"model.path={checkpoints[model_type]}", f"data.train={file}", f"data.eval={file}",
        "data.packing=false", "data.workers=0", "train.accumulation=2", "train.max_steps=3", "train.log_steps=1",
        "train.lr=1e-4", "train.warmup=0", "train.eval_batch_size=3", "logging.predictions=1",
    )  # fmt: skip
    one = train(tmp_path / "one", *common, "train.batch_size=4")
    launch(
        launcher, tmp_path / "two", *common, "train.batch_size=2", f"deepspeed={stage}", f"dpo.reference={reference}"
    )
    two = tmp_path / "two" / "run"
    assert_same_curve(figures(two), figures(one))
    for kind in ("loss", "eval_loss"):
        prefix = "eval_" * (kind == "eval_loss")
        for mine, theirs in zip(rows(two, kind), rows(one, kind), strict=True):
            for name in ("rewards/chosen", "rewards/rejected", "logps/chosen"):
                key = prefix + name
                # Measured worst case: 1.0e-6, of log-probabilities summed over up to 80 tokens
                assert mine[key] == pytest.approx(theirs[key], rel=1e-5, abs=1e-5), key


def test_what_one_process_meets_ends_both(pictures, write_rows, checkpoints, tmp_path):
    """The other one would wait for its gradients, and nobody would say why."""
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[3].read_bytes()[:300])  # its header is whole, its pixels are not
    asked = [cut, *pictures[:3]] * 2
    path = write_rows([conversation(("user", [it, "What?"]), ("assistant", ["Red."])) for it in asked])
    told = launch(
        "torchrun", tmp_path, "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={path}",
        "data.packing=false", "data.workers=0", "train.max_steps=4", "data.on_error=skip",
        "data.max_skipped=1", fails=True,
    )  # fmt: skip
    reason = "2 rows cannot be used, data.max_skipped allows 1; one of them: "
    assert told.count(f"qwenvl-train: {reason}") == 1
    folder = tmp_path / "run"
    assert summary(folder)["status"] == "failed"
    assert summary(folder)["reason"].startswith(reason)
    assert sorted(row["line"] for row in read_lines(folder / "skipped.jsonl")) == [1, 5]
