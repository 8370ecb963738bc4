"""What arrives at a server: from online runs, from `wandb sync`, and after an outage."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from qwenvl_train.config.compose import compose
from qwenvl_train.reporting import wandb as reporting
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.reporter import Lengths
from qwenvl_train.reporting.wandb import WandbRun
from tests.videos import write_video

from .rows import SUMMARY, draw_receipt, evaluation_row, training_row
from .test_wandb import config
from .wandb_server import WandbServer, sync

pytestmark = pytest.mark.usefixtures("no_wandb_user")

BOXES = {
    "expected": [{"label": "total", "coordinates": [42.0, 56.0, 210.0, 280.0]}],
    "after": [{"label": "total", "coordinates": [210.0, 280.0]}],
}


@pytest.fixture
def answers(tmp_path) -> list[dict]:
    picture = tmp_path / "receipt.png"
    draw_receipt(picture, "12.80")
    row = {"source": "receipts/eval.jsonl", "prompt": "The total?", "expected": "12.80", "before": "A list."}
    scores = {"before": {"anls": 0.25}, "after": {"anls": 1.0, "number": 1.0}}
    first = {"id": "receipt-1", "line": 1, "images": [str(picture)], "after": "12.80", "regions": BOXES}
    return [
        row | first | {"scores": scores},
        row | {"id": None, "line": 2, "turn": 3, "images": [], "after": "A list."},
    ]


def log_all(reporter: WandbRun, answers: list[dict]) -> None:
    reporter.answered(0, answers)
    reporter.log(evaluation_row(0, 0.05))
    reporter.log(training_row(1) | {"sources": {"a.jsonl": {"loss": 0.5}}})
    reporter.log(evaluation_row(2, 0.5) | {"eval_generated/anls": 0.25})
    reporter.answered(2, answers)


def check(server: WandbServer, run, tables: bool = True, pictures: bool = True) -> None:
    """Every figure, cell, picture and setting of `log_all` has arrived."""
    (name,) = server.runs
    history = [row for row in server.history(name) if "report" not in row]
    figures = {"train/loss", "optimizer/grad_norm", "speed/tokens_per_second", "progress/samples"}
    lengths = next(row["data/sequence_lengths"] for row in history if "data/sequence_lengths" in row)
    assert (lengths["values"], lengths["bins"]) == (LENGTHS.counts, LENGTHS.edges)
    (training,) = [row for row in history if figures <= row.keys()]
    sent = training_row(1)
    assert training["step"] == 1
    assert training["train/loss"] == sent["loss"]
    assert training["train/sources/a.jsonl/loss"] == 0.5
    assert training["optimizer/lr_mlp"] == sent["lr_mlp"]
    assert len([key for key in training if "/" in key]) == len(sent)  # without the step, with one source
    evaluations = [row for row in history if "eval/loss" in row]
    assert [(row["step"], row["eval/exact_match"]) for row in evaluations] == [(0, 0.05), (2, 0.5)]
    assert evaluations[1]["scores/anls"] == 0.25

    if tables:
        check_tables(server, history, pictures)
    settings = server.config(name)
    assert settings["data"] == run.config["data"]
    assert settings["components"]["mlp"]["mode"] == "full"
    assert settings["environment"]["recipe"] == "sft_lora"
    assert settings["environment"]["run"] == {"processes": 1}
    assert not [operation for operation in server.unknown if not operation.startswith("/sdk/otel")]


def check_tables(server: WandbServer, history: list[dict], pictures: bool) -> None:
    (name,) = server.runs
    tables = [row["answers/samples"] for row in history if "answers/samples" in row]
    assert len(tables) == 2
    table = json.loads(server.uploads[f"{name}/{tables[-1]['path']}"])
    texts, scores = ["prompt", "expected", "before", "after"], ["anls before", "anls after", "number after"]
    assert table["columns"] == ["sample", "picture", *texts, "right", "changed", *scores]
    first, second = table["data"]
    assert [first[0], *first[2:8]] == ["receipt-1", "The total?", "12.80", "A list.", "12.80", True, True]
    assert first[8:] == [0.25, 1.0, 1.0]
    assert second[:8] == ["eval.jsonl:2 turn 3", None, "The total?", "12.80", "A list.", "A list.", False, False]
    assert second[8:] == [None, None, None]
    if pictures:
        full = next(
            json.loads(content) for path, content in server.uploads.items() if path.endswith("samples.table.json")
        )
        picture = full["data"][0][1]
        assert any(path.endswith(picture["path"]) for path in server.uploads)
        boxes = {kind: box["position"] for kind, (box,) in picture["boxes"].items()}
        assert boxes["expected"] == {"minX": 0.1, "maxX": 0.5, "minY": 0.1, "maxY": 0.5}
        assert boxes["after"] == pytest.approx({"minX": 0.49, "maxX": 0.51, "minY": 0.49, "maxY": 0.51})
        assert {one["state"] for one in server.artifacts.values()} == {"COMMITTED"}


LENGTHS = Lengths([3, 0, 7], [10.0, 20.0, 30.0, 40.0])


@pytest.fixture
def run(run):
    run = replace(run, lengths=LENGTHS)
    RunFolder(run.folder).write_environment(
        [], {"processes": 1}, {"model": {"path": "models/mine"}, "recipe": "sft_lora"}
    )
    return run


def test_all_of_an_offline_run_arrives_by_wandb_sync(run, said, server, answers, monkeypatch):
    (run.folder / "report.html").write_text("<p>all of it</p>", encoding="utf-8")
    reporter = WandbRun(config("offline"), said.append)
    reporter.start(run)
    log_all(reporter, answers)
    reporter.finish(SUMMARY)
    assert not server.runs
    folder = Path(reporter._run.dir).parent
    assert folder.is_relative_to(run.folder)
    assert "WANDB_DATA_DIR" not in os.environ
    sync(str(folder))
    check(server, run)
    (name,) = server.runs
    summary = server.summary(name)
    assert summary["metrics/after/eval_exact_match"] == SUMMARY["metrics"]["after"]["eval_exact_match"]
    assert summary["eval/exact_match"] == {"max": 0.5, "last": 0.5}
    assert summary["scores/anls"] == {"min": 0.25, "max": 0.25, "last": 0.25}
    assert "<p>all of it</p>" in [server.uploads[path].decode() for path in server.uploads if path.endswith(".html")]


def test_a_copied_run_folder_can_be_uploaded_without_the_pictures_of_its_tables(
    run, said, server, answers, tmp_path
):  # fmt: skip
    reporter = WandbRun(config("offline"), said.append)
    reporter.start(run)
    log_all(reporter, answers)
    reporter.finish(SUMMARY)
    copied = tmp_path / "copied"
    shutil.move(run.folder, copied)
    sync(str(copied / Path(reporter._run.dir).parent.relative_to(run.folder)))
    check(server, run, pictures=False)


def test_an_online_run_is_continued(run, said, server, answers):
    reporter = WandbRun(config(entity="team"), said.append)
    reporter.start(run)
    reporter.answered(0, answers)
    reporter.log(evaluation_row(0, 0.05))
    reporter.log(training_row(1) | {"sources": {"a.jsonl": {"loss": 0.5}}})
    reporter.finish(SUMMARY | {"status": "interrupted"})
    assert said == [f"W&B: {reporter._run.url}"]
    wandb.teardown()
    again = WandbRun(config(entity="team"), said.append)
    again.start(replace(run, start_step=1))
    again.log(evaluation_row(2, 0.5) | {"eval_generated/anls": 0.25})
    again.answered(2, answers)
    again.finish(SUMMARY)
    check(server, run)


def test_a_run_that_resumes_offline_adds_to_its_rows(run, said, server):
    for begun, steps in ((run, (1, 2, 3)), (replace(run, start_step=2), (3, 4))):
        reporter = WandbRun(config("offline"), said.append)
        reporter.start(begun)
        for step in steps:
            reporter.log(training_row(step))
        reporter.finish(SUMMARY)
    sync(*map(str, sorted((run.folder / "wandb").glob("offline-run-*"))))
    (name,) = server.runs
    assert [row["step"] for row in server.history(name) if "train/loss" in row] == [1, 2, 3, 3, 4]
    assert server.summary(name)["train/loss"]["last"] == training_row(4)["loss"]


def test_an_outage_in_the_middle_loses_nothing(run, said, server, answers):
    reporter = WandbRun(config(), said.append)
    reporter.start(run)
    server.down = True
    log_all(reporter, answers)
    server.down = False
    reporter.finish(SUMMARY)
    check(server, run)


def test_what_an_outage_at_the_end_keeps_back_is_uploaded_later(run, said, server, answers, monkeypatch):
    monkeypatch.setattr(reporting, "UPLOAD_SECONDS", 3)
    reporter = WandbRun(config(), said.append)
    reporter.start(run)
    server.down = True
    log_all(reporter, answers)
    reporter.finish(SUMMARY)
    wandb.teardown()  # as at the end of the process
    first, command = said[-1].split(": ")
    assert first == "W&B did not receive the whole run within 3 s. Upload the rest with"
    server.down = False
    assert command.startswith("wandb sync ")
    sync(*command.split()[2:])
    check(server, run, tables=False)


def test_the_death_of_wandbs_process_does_not_end_the_run(run, said):
    reporter = WandbRun(config("offline"), said.append)
    reporter.start(run)
    reporter.log(training_row(1))
    found = subprocess.run(["pgrep", "-f", f"wandb-core.*--pid {os.getpid()}"], capture_output=True, text=True)
    os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    for step in range(2, 50):
        reporter.log(training_row(step))
        time.sleep(0.01)
    reporter.finish(SUMMARY)
    told = [line for line in said if line.startswith("W&B has failed, and the run goes on without it: ")]
    assert len(told) == 1
    wandb.setup()  # as the next run of this program does
    wandb.teardown()


@pytest.fixture
def checkpoints(run) -> list[Path]:
    folders = [run.folder / "checkpoints" / f"step-{step}" for step in (40, 80)]
    for folder in folders:
        (folder / "global_step40").mkdir(parents=True)
        for name in ("model.safetensors", "config.json", "optimizer.pt", "rng_state_0.pth", "global_step40/state.pt"):
            (folder / name).write_text(f"{folder.name} {name}")
        (folder / "evaluation.json").write_text('{"eval_loss": 0.5}')
    return folders


@pytest.mark.parametrize(
    ("mode", "artifacts", "versions"),
    [
        ("online", "none", 0),
        ("online", "best", 1),
        pytest.param("online", "all", 3, marks=pytest.mark.nightly),
        pytest.param("offline", "none", 0, marks=pytest.mark.nightly),
        pytest.param("offline", "best", 1, marks=pytest.mark.nightly),
        ("offline", "all", 3),
    ],
)
def test_checkpoints_are_artifacts_without_the_state_of_the_optimizer(
    artifacts, versions, mode, run, said, server, checkpoints
):
    reporter = WandbRun(config(mode, artifacts=artifacts), said.append)
    reporter.start(run)
    for checkpoint in checkpoints:
        reporter.saved(checkpoint)
    reporter.finish(SUMMARY | {"best": {"checkpoint": checkpoints[0], "eval_loss": 0.5}})
    if mode == "offline":
        sync(str(Path(reporter._run.dir).parent))
    made = [one for one in server.artifacts.values() if one["artifactTypeName"] == "model"]
    assert len(made) == versions
    if not made:
        return
    best = made[-1]
    assert best["state"] == "COMMITTED"
    assert {one["alias"] for one in best["aliases"]} >= {"step-40", "best"}
    facts = json.loads(best["metadata"])
    assert (facts["step"], facts["metrics"]) == (40, {"eval_loss": 0.5})
    assert facts["data"] == run.config["data"]["train"]
    (number,) = [number for number, one in server.artifacts.items() if one is best]
    manifest = json.loads(server.uploads[f"{number}/wandb_manifest.json"])
    assert set(manifest["contents"]) == {"model.safetensors", "config.json", "evaluation.json"}
    assert b"step-40 model.safetensors" in server.uploads.values()
    assert not [content for content in server.uploads.values() if b"optimizer.pt" in content]


def test_pairs_and_clips_are_in_the_table(run, said, server, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", frames=4)
    row = {"id": "1", "source": "a.jsonl", "line": 1, "images": [], "prompt": "?", "expected": "Red.", "before": "No."}
    frames = {"videos": [["1.png", "2.png"]], "rejected": "Blue.", "after": "Blue."}
    reporter = WandbRun(config("offline"), said.append)
    reporter.start(run)
    reporter.answered(2, [row | {"videos": [str(clip)], "rejected": "Blue.", "after": "Red."}, row | frames])
    reporter.finish(SUMMARY)
    sync(str(Path(reporter._run.dir).parent))
    table = next(json.loads(content) for path, content in server.uploads.items() if path.endswith("samples.table.json"))
    names = ["sample", "video", "prompt", "chosen", "rejected", "before", "after", "right", "changed"]
    assert table["columns"] == names
    first, second = (dict(zip(names, cells, strict=True)) for cells in table["data"])
    assert (first["chosen"], first["rejected"], first["right"], second["right"]) == ("Red.", "Blue.", True, False)
    assert second["video"] is None
    assert clip.read_bytes() in server.uploads.values()


def test_a_run_of_a_sweep_is_the_one_that_the_agent_has_begun(run, said, server, monkeypatch, tmp_path):
    """As `wandb agent` starts it, with the command of docs/tracking.md."""
    text = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text(encoding="utf-8")
    sweep = yaml.safe_load(re.search(r"```yaml\n(method: .+?)```", text, re.DOTALL)[1])
    chosen = {"args": {"train.lr": {"value": 2e-4}, "lora.rank": {"value": 8}}}
    assert chosen["args"].keys() == sweep["parameters"].keys()
    given = create_sweep_command_args(chosen)["args_no_hyphens"]
    program, *words = [word for part in sweep["command"] for word in (given if part.startswith("${") else [part])]
    settings = compose(words).config
    assert (program, settings.train.lr, settings.lora.rank) == ("qwenvl-train", 2e-4, 8)

    parameters = tmp_path / "config.yaml"
    parameters.write_text(yaml.safe_dump({"wandb_version": 1} | chosen["args"]), encoding="utf-8")
    variables = {"SWEEP_ID": "sweep1", "RUN_ID": "chosen1", "PROJECT": "receipts", "SWEEP_PARAM_PATH": str(parameters)}
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    reporter = WandbRun(config(project="other"), said.append)
    reporter.start(run)
    reporter.log(evaluation_row(2, 0.5))
    reporter.finish(SUMMARY)
    (found,) = server.runs.items()
    assert found[0] == "chosen1"
    assert (found[1]["sweep"], found[1]["project"]) == ("sweep1", "receipts")
    assert any(sweep["metric"]["name"] in row for row in server.history("chosen1"))
