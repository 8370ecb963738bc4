"""`eval` and `export` add what they find to the W&B run of their run, if they are asked to."""

import json

import pytest

from qwenvl_train.cli import main
from qwenvl_train.run.lock import locked
from tests.conftest import conversation
from tests.reporting.wandb_server import KEY, sync, wandb_server
from tests.verbs.export.runs import MODES, write_run

pytestmark = pytest.mark.usefixtures("no_wandb_user")


@pytest.fixture
def mine(checkpoints, pictures, write_rows, tmp_path):
    """A run folder of a run that W&B has tracked."""
    rows = write_rows([conversation(("user", [pictures[0], "What?"]), ("assistant", ["Red."]))] * 2, "held_out.jsonl")
    folder = write_run(tmp_path / "runs" / "mine", checkpoints["qwen2_5_vl"], "qwen2_5_vl", rows, **MODES["lora llm"])
    (folder / "wandb_id.txt").write_text("4f1c22aa\n")
    return folder


def test_both_add_to_the_run_only_when_asked(mine, monkeypatch, capfd):
    words = [f"run={mine}", "data.workers=0", "train.precision=fp32"]
    told = {"eval": ["eval.max_new_tokens=2"], "export": ["export.verify=false"]}
    for verb, more in told.items():
        assert main([verb, *words, *more]) == 0
    assert not (mine / "wandb").exists()
    offline = "logging.wandb.mode=offline"
    capfd.readouterr()
    assert main(["eval", *words, *told["eval"], "eval.wandb=true", "output=json", offline]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["answers"] == 2
    assert "W&B is offline: offline mode is set." in err
    to = f"export.to={mine.parent / 'exported'}"
    assert main(["export", *words, *told["export"], to, "export.wandb=true", offline]) == 0
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        sync(*map(str, sorted((mine / "wandb").glob("offline-run-*"))))
    assert list(server.runs) == ["4f1c22aa"]
    (row,) = [row for row in server.history("4f1c22aa") if any(key.startswith("evaluations/") for key in row)]
    assert row["step"] == 3
    assert {key.partition("-")[0] for key in row if "/" in key} == {"evaluations/held_out.jsonl"}
    assert {key.rpartition("/")[2] for key in row if "/" in key} == {"exact_match", "anls"}
    assert any(key.startswith("answers/held_out.jsonl-") for one in server.history("4f1c22aa") for key in one)
    summary = server.summary("4f1c22aa")
    exported = {key.removeprefix("exports/step-3/"): value for key, value in summary.items() if "exports/" in key}
    assert exported.keys() == {"merged-bf16/compared", "merged-bf16/size_gb"}
    assert exported["merged-bf16/compared"] == "no"
    assert any(key.startswith("evaluations/") for key in summary)
    assert not [one for one in server.artifacts.values() if one["artifactTypeName"] == "model"]


@pytest.mark.parametrize("verb", ["eval", "export"])
def test_what_cannot_be_added_is_told_at_once(verb, mine, capfd):
    asked = f"{verb}.wandb=true"
    assert main([verb, f"model.path={mine}/checkpoints/step-3", f"data.eval={mine}/x.jsonl", asked]) == 2
    assert f"{asked} needs run=" in capfd.readouterr().err
    assert main([verb, f"run={mine}", asked, "logging.wandb.mode=disabled"]) == 2
    assert f"{asked} has no effect with logging.wandb.mode=disabled" in capfd.readouterr().err
    with locked(mine):
        assert main([verb, f"run={mine}", asked]) == 2
    assert f"{asked}: {mine} is still training" in " ".join(capfd.readouterr().err.split())
    (mine / "wandb_id.txt").unlink()
    assert main([verb, f"run={mine}", asked]) == 2
    assert "was not tracked by W&B: it has no wandb_id.txt" in " ".join(capfd.readouterr().err.split())
