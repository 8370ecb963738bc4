"""What a real run gives the trackers: its metrics, the answers of each evaluation, and its checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qwenvl_train.cli import main
from qwenvl_train.reporting.reporter import Forecast
from qwenvl_train.reporting.tracking import tracked
from qwenvl_train.run import preparing
from tests.commands import read_lines
from tests.conftest import conversation
from tests.reporting.wandb_server import wandb_server


@pytest.mark.usefixtures("no_wandb_user")
def test_a_run_gives_trackers_all_it_has(write_rows, checkpoints, pictures, tmp_path, monkeypatch):
    asked = [[picture, "What? " * number] for number, picture in enumerate(pictures, start=1)]
    data = write_rows([conversation(("user", one), ("assistant", ["Red."])) for one in asked])
    settings = [
        "+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={data}", f"data.eval={data}",
        "data.workers=0", "train.max_steps=2", "train.log_steps=1", "train.eval_steps=1", "train.save_steps=1",
        "train.keep=2", "logging.predictions=2", "eval.max_new_tokens=2", "logging.tensorboard=true",
        "logging.wandb.mode=offline", "logging.wandb.artifacts=all", f"output_dir={tmp_path}", "run_name=run",
    ]  # fmt: skip
    forecast = Forecast(step_seconds=0.5, memory_gib=3.0)
    monkeypatch.setattr(preparing, "forecast_of", lambda *_: forecast)
    assert main(settings) == 0
    folder = tmp_path / "run"
    rows = read_lines(folder / "metrics.jsonl")

    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0}).Reload()
    texts = [name for name in board.Tags()["tensors"] if name.startswith("answers/")]
    assert [[one.step for one in board.Tensors(name)] for name in texts] == [[0, 1, 2]] * 2
    assert set(board.Tags()["scalars"]) == {name for row in rows for name in tracked(row, forecast)}
    assert [one.value for one in board.Scalars("plan/step_seconds")] == [0.5] * 2

    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        (written,) = (folder / "wandb").glob("offline-run-*")
        command = [str(Path(sys.executable).parent / "wandb"), "sync", str(written)]
        subprocess.run(command, env=dict(os.environ), check=True, capture_output=True, timeout=120)
    (name,) = server.runs
    history = server.history(name)
    planned = [(row["plan/step_seconds"], row["plan/memory_gib"]) for row in history if "speed/step_seconds" in row]
    assert planned == [(0.5, 3.0)] * 2
    tables = {row["step"]: row["answers/samples"]["path"] for row in history if "answers/samples" in row}
    assert list(tables) == [0, 1, 2]
    table = json.loads(server.uploads[f"{name}/{tables[2]}"])
    shown = [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]
    stored = [row["scores"] for row in read_lines(folder / "predictions.jsonl")]
    assert stored[0]["after"].keys() == {"exact_match", "anls"}
    for when in ("before", "after"):
        assert [row[f"anls {when}"] for row in shown] == [scores[when]["anls"] for scores in stored]
    (lengths,) = [row["data/sequence_lengths"] for row in history if "data/sequence_lengths" in row]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["forecast"] == {"step_seconds": 0.5, "memory_gib": 3.0}
    tokens = environment["run"]["tokens"]
    middles = [(low + high) / 2 for low, high in zip(lengths["bins"][:-1], lengths["bins"][1:], strict=True)]
    assert sum(lengths["values"]) == len(asked)
    assert sum(n * at for n, at in zip(lengths["values"], middles, strict=True)) == pytest.approx(tokens, rel=0.05)
    models = [one for one in server.artifacts.values() if one["artifactTypeName"] == "model"]
    aliases = [{alias["alias"] for alias in one["aliases"]} - {"latest"} for one in models]
    assert aliases[:2] == [{"step-1"}, {"step-2"}]
    assert "best" in aliases[2]
