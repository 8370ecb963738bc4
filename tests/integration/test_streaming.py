"""Streamed data through the whole command: the same curve after a kill, whoever reads ahead, and clear words."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from qwenvl_train.cli import main
from qwenvl_train.data.streaming import windows
from qwenvl_train.data.streaming.windows import State
from qwenvl_train.errors import UserError
from qwenvl_train.training.trainer import VisionTrainer
from tests.commands import QUIET, rows, summary, train
from tests.conftest import conversation
from tests.streams import write_stream

SETTINGS = (
    "+recipe=sft_lora", "data.streaming=true", "train.max_steps=6", "train.save_steps=3",
    "train.log_steps=1", "train.warmup=0", "train.accumulation=2",
)  # fmt: skip
KEYS = ("step", "loss", "grad_norm", "tokens", "samples", "supervised_tokens", "epoch")


def curve(folder) -> list[list]:
    return [[row[key] for key in KEYS] for row in rows(folder)]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """So that a short run goes through several."""
    monkeypatch.setattr(windows, "_SAMPLES", 5)
    monkeypatch.setattr(windows, "_SMALL", 0)


@pytest.fixture
def uneven(pictures, tmp_path):
    return write_stream(tmp_path / "data", pictures)


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        pytest.param(["train.batch_size=2", "data.packing=false"], (0, 2), marks=pytest.mark.nightly),
        (["data.max_length=200"], (2, 0)),
    ],
)
def test_a_killed_run_goes_on_with_the_same_rows(settings, workers, uneven, checkpoints, tmp_path, capsys):
    """With another number of workers, too."""
    common = (
        *SETTINGS,
        "lora.dropout=0.1",
        *settings,
        f"model.path={checkpoints['qwen2_5_vl']}",
        f"data.train={uneven}",
    )
    whole = train(tmp_path, *common, f"data.workers={workers[0]}")
    assert f"{uneven}: streamed from 2 files, messages: rows have" in capsys.readouterr().out
    shutil.copytree(whole, tmp_path / "killed" / "run")
    shutil.rmtree(tmp_path / "killed" / "run" / "checkpoints" / "step-6")
    resumed = train(tmp_path / "killed", *common, f"data.workers={workers[1]}")
    assert curve(resumed) == curve(whole)
    assert rows(whole)[-1]["epoch"] >= 1
    ends = [json.loads((folder / "checkpoints" / "step-6" / "stream.json").read_text()) for folder in (whole, resumed)]
    assert ends[0] == ends[1]
    assert ends[0]["window"] >= 4
    if "data.packing=false" in settings:
        assert [row["samples"] for row in rows(whole)] == [4, 8, 12, 16, 20, 24]

    # Other files are other data.
    shutil.rmtree(tmp_path / "killed" / "run" / "checkpoints" / "step-6")
    shutil.copy(uneven / "a.jsonl", uneven / "c.jsonl")
    assert main([*common, "logging=local", f"output_dir={tmp_path / 'killed'}", "run_name=run"]) == 2
    assert "streamed_files was 2, is 3" in capsys.readouterr().err


def test_bad_rows_are_left_out_and_listed_as_they_come(uneven, pictures, checkpoints, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[3].read_bytes()[:300])  # its header is whole, its pixels are not
    lines = (uneven / "a.jsonl").read_text().splitlines()
    cut = json.dumps(conversation(("user", [broken, "What?"]), ("assistant", ["Red."]), id="cut"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join([lines[0], "{", *lines[1:6], '{"text": 1}', *lines[6:8], cut]))
    settings = (*SETTINGS, f"model.path={checkpoints['qwen2_vl']}", f"data.train={bad}", "data.packing=false")
    where = ("logging=local", f"output_dir={tmp_path}", "run_name=refused")
    assert main([*settings, *where]) == 2
    assert f"{bad}:2 is not valid JSON" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    assert main([*settings, *where, "data.on_error=skip", "data.max_skipped=1"]) == 2
    assert "2 rows cannot be used, but data.max_skipped is 1" in capsys.readouterr().err
    folder = train(tmp_path, *settings, "data.on_error=skip", "data.workers=1", f"data.eval={uneven}", QUIET)
    listed = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
    assert sorted((row["line"], row["kind"]) for row in listed) == [(2, "broken"), (8, "broken"), (11, "broken")]
    assert summary(folder)["skipped"] == 3
    assert rows(folder, "eval_loss")[-1]["eval_samples"] == 17


def test_weights_decide_the_shares(uneven, checkpoints, tmp_path):
    sources = f"[{{path: {uneven}/a.jsonl, weight: 1}}, {{path: {uneven}/b.parquet, weight: 3}}]"
    settings = (
        *SETTINGS,
        f"model.path={checkpoints['qwen3_vl']}",
        f"data.train={sources}",
        "data.packing=false",
        "train.batch_size=2",
    )
    folder = train(tmp_path, *settings)
    state = json.loads((folder / "checkpoints" / "step-6" / "stream.json").read_text())
    few, many = (entry["drawn"] for entry in state["entries"])
    assert (few, many) == (5, 15)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["data.train=org/name"],
            "data.train: org/name is not a local file or folder, and cannot be loaded as a hub dataset",
        ),
        (["data.train=gone.jsonl"], "data.train: there is no file or folder"),
        (["data.train={empty}"], "(…) has no rows"),
    ],
)
def test_what_cannot_be_streamed_is_told_before_anything_is_written(settings, words, checkpoints, tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    given = [setting.format(empty=empty) for setting in settings]
    where = ["logging=local", f"output_dir={tmp_path / 'runs'}", f"model.path={checkpoints['qwen2_vl']}"]
    assert main([*SETTINGS, *given, *where]) == 2
    assert words.replace("…", str(empty)) in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.train=a", "train.epochs=2"], "data.streaming=true needs train.max_steps"),
        (
            ["train.max_steps=2", "data.train=[{path: a, repeats: 2}]"],
            "repeats has no effect on a while data.streaming",
        ),
    ],
)
def test_what_a_stream_cannot_do_is_told(settings, words, capsys):
    assert main(["+recipe=sft_lora", "data.streaming=true", *settings]) == 2
    assert words in capsys.readouterr().err


def test_processes_that_read_different_rows_do_not_save(tmp_path):
    stream = SimpleNamespace(state=lambda rows: State(0, rows, 0, 0, 0, ()))
    accelerator = SimpleNamespace(gather=lambda mine: torch.cat([mine, mine + 1]), is_main_process=True)
    trainer = SimpleNamespace(
        _stream=stream,
        _rows_before=lambda step: step,
        accelerator=accelerator,
        args=SimpleNamespace(device="cpu"),
        state=SimpleNamespace(global_step=3),
    )
    with pytest.raises(UserError, match="have read different rows"):
        VisionTrainer._save_stream(trainer, tmp_path / "stream.json")
    assert not list(tmp_path.iterdir())
