"""Which settings may change when a run resumes, where they are paths."""

import json
from pathlib import Path

import pytest
import yaml

from qwenvl_train.config.compose import compose
from qwenvl_train.config.paths import with_absolute_paths
from qwenvl_train.errors import UserError
from qwenvl_train.run.resume import checkpoint_to_resume

FACTS = {"processes": 1}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with data, a checkpoint of a model, and a run that was started in it."""
    project = tmp_path / "project"
    for folder in ("model", "other", "runs/mine/checkpoints/step-1"):
        (project / folder).mkdir(parents=True)
    for name in ("rows.jsonl", "others.jsonl"):
        (project / name).touch()
    monkeypatch.chdir(project)
    config = with_absolute_paths(settings().model_dump(mode="json"), project)
    (project / "runs" / "mine" / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {"run": FACTS, "working_directory": str(project)}
    (project / "runs" / "mine" / "environment.json").write_text(json.dumps(environment))
    return project


def settings(model: str = "model", train: str = "rows.jsonl"):
    return compose(["+recipe=sft_lora", f"model.path={model}", f"data.train=[{{path: {train}, media_root: .}}]"]).config


def test_a_run_resumes_where_it_was_started(project):
    assert checkpoint_to_resume(settings(), Path("runs/mine"), FACTS).name == "step-1"


def test_a_run_resumes_from_another_directory(project, monkeypatch):
    monkeypatch.chdir(project / "model")
    train = "[{path: ../rows.jsonl, media_root: ..}]"
    config = compose(["+recipe=sft_lora", f"model.path={project}/model", f"data.train={train}"]).config
    assert checkpoint_to_resume(config, project / "runs" / "mine", FACTS)


def test_a_run_resumes_in_a_project_that_was_moved(project, monkeypatch):
    moved = project.rename(project.with_name("moved"))
    monkeypatch.chdir(moved)
    assert checkpoint_to_resume(settings(), Path("runs/mine"), FACTS)
    assert checkpoint_to_resume(settings(model=f"{moved}/model"), moved / "runs" / "mine", FACTS)


@pytest.mark.parametrize(
    ("changed", "key"), [({"model": "other"}, r"model\.path"), ({"train": "others.jsonl"}, r"data\.train")]
)
@pytest.mark.parametrize("moved", [False, True])
def test_another_file_is_another_run(changed, key, moved, project, monkeypatch):
    if moved:
        monkeypatch.chdir(project.rename(project.with_name("moved")))
    with pytest.raises(UserError, match=f"cannot resume with changed settings: {key} was"):
        checkpoint_to_resume(settings(**changed), Path("runs/mine"), FACTS)


def test_a_run_of_a_version_that_stored_relative_paths_resumes(project):
    stored = project / "runs" / "mine"
    (stored / "config.yaml").write_text(yaml.safe_dump(settings().model_dump(mode="json")))
    (stored / "environment.json").write_text(json.dumps({"run": FACTS}))
    assert checkpoint_to_resume(settings(), stored, FACTS)
    with pytest.raises(UserError, match="processes was 1, is 2"):
        checkpoint_to_resume(settings(), stored, {"processes": 2})
