"""What is added to the W&B run of a finished run: it arrives beside what is there, online and by `wandb sync`."""

import json

import pytest
import wandb

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.attached import AttachedRun, Evaluation, Export
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.wandb import WandbRun

from .rows import SUMMARY, evaluation_row, training_row
from .test_wandb import config
from .wandb_server import sync

pytestmark = pytest.mark.usefixtures("no_wandb_user")


def evaluation(step: int, asked: str, score: float) -> Evaluation:
    row = {"id": None, "source": "val.jsonl", "line": 1, "images": [], "prompt": "?", "expected": "Red."}
    answers = [row | {"answer": "Blue.", "scores": {"answer": {"anls": score}}}]
    return Evaluation(step, asked, {"samples": 20}, {"val.jsonl": {"anls": score}}, answers)


@pytest.mark.parametrize(
    ("mode", "artifacts"),
    [("online", "all"), ("offline", "none"), pytest.param("offline", "all", marks=pytest.mark.nightly)],
)
def test_evaluations_and_exports_arrive_beside_what_the_run_has(mode, artifacts, run, said, server, tmp_path):
    folder, settings = RunFolder(run.folder), config(mode, artifacts=artifacts, entity="team")
    folder.write_config(run.config)
    folder.write_components(run.components)
    folder.write_summary(SUMMARY)
    reporter = WandbRun(settings, said.append)
    reporter.start(run)
    reporter.log(training_row(1))
    reporter.log(evaluation_row(2, 0.5))
    reporter.finish(SUMMARY)
    exported = tmp_path / "merged"
    exported.mkdir()
    (exported / "model.safetensors").write_text("merged")
    for found in (evaluation(40, "aa", 0.5), evaluation(80, "aa", 0.75), evaluation(80, "bb", 0.25)):
        AttachedRun("eval.wandb", run.folder, settings, said.append).add_evaluation(found)
    made = Export(exported, 80, "merged-bf16", {"size_gb": 1.5, "compared": "no"})
    AttachedRun("export.wandb", run.folder, settings, said.append).add_export(made)
    if mode == "offline":
        assert not server.runs
        sync(*map(str, sorted((run.folder / "wandb").glob("offline-run-*"))))

    (name,) = server.runs
    history = server.history(name)
    assert [row["train/loss"] for row in history if "train/loss" in row] == [training_row(1)["loss"]]
    assert [row["eval/exact_match"] for row in history if "eval/exact_match" in row] == [0.5]
    for asked, expected in (("aa", [(40, 0.5), (80, 0.75)]), ("bb", [(80, 0.25)])):
        key = f"evaluations/val.jsonl-{asked}/anls"
        assert [(row["step"], row[key]) for row in history if key in row] == expected
        paths = [row[f"answers/val.jsonl-{asked}"]["path"] for row in history if f"answers/val.jsonl-{asked}" in row]
        table = json.loads(server.uploads[f"{name}/{paths[-1]}"])
        assert table["columns"] == ["sample", "prompt", "expected", "answer", "right", "anls"]
        assert table["data"] == [["val.jsonl:1", "?", "Red.", "Blue.", False, expected[-1][1]]]
        assert server.config(name)[f"evaluation_{asked}"] == {"samples": 20}
    assert server.config(name)["train"] == run.config["train"]
    summary = server.summary(name)
    assert summary["status"] == "done"
    assert summary["train/loss"] == pytest.approx(dict.fromkeys(("min", "last"), training_row(1)["loss"]))
    assert summary["evaluations/val.jsonl-aa/anls"] == 0.75
    assert summary["exports/step-80/merged-bf16/size_gb"] == 1.5
    models = [one for one in server.artifacts.values() if one["artifactTypeName"] == "model"]
    assert len(models) == (artifacts == "all")
    for one in models:
        assert one["artifactCollectionName"] == "receipts-merged-bf16"
        assert {alias["alias"] for alias in one["aliases"]} >= {"step-80"}
        facts = json.loads(one["metadata"])
        assert (facts["step"], facts["size_gb"], facts["data"]) == (80, 1.5, run.config["data"]["train"])


def test_a_run_without_wandb_is_told(run):
    with pytest.raises(UserError, match=r"eval.wandb=true: .*receipts was not tracked by W&B: it has no wandb_id.txt"):
        AttachedRun("eval.wandb", run.folder, config("offline"))


def test_a_server_that_is_away_ends_nothing(run, said, monkeypatch):
    (run.folder / "wandb_id.txt").write_text("4f1c22aa\n")
    RunFolder(run.folder).write_config(run.config)

    def broken(**_):
        raise RuntimeError("no space left")

    monkeypatch.setattr(wandb, "init", broken)
    AttachedRun("eval.wandb", run.folder, config("offline"), said.append).add_evaluation(evaluation(40, "aa", 0.5))
    assert said == ["W&B has failed, and the run goes on without it: no space left"]
