"""Which settings may change when a run resumes, where they are paths."""

import json
from pathlib import Path

import pytest
import yaml

from qwenvl_train.config.compose import compose
from qwenvl_train.config.paths import with_absolute_paths
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.order.step_size import FirstStart, MicroStep, StepSize
from qwenvl_train.errors import UserError
from qwenvl_train.run.resume import checkpoint_to_resume, facts_of_start, first_start_of, refuse_changes


def facts(accumulation: int, pack_length: int | None, processes: int = 1, batch_size: int = 1) -> dict:
    return facts_of_start(FirstStart(StepSize(accumulation, pack_length), MicroStep(processes, batch_size)))


FACTS = facts(4, 8192)


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


def settings(*more: str, model: str = "model", train: str = "rows.jsonl") -> RunConfig:
    own = (f"model.path={model}", f"data.train=[{{path: {train}, media_root: .}}]")
    return compose(["+recipe=sft_lora", *own, *more]).config


def resume(config: RunConfig, folder: Path, facts: dict = FACTS) -> Path:
    """Return the checkpoint that a run with these settings resumes from."""
    found = checkpoint_to_resume(config, folder).checkpoint
    assert found is not None
    refuse_changes(config, facts, Path(found))
    return Path(found)


def test_a_run_resumes_where_it_was_started(project):
    assert resume(settings(), Path("runs/mine")).name == "step-1"


def test_a_run_resumes_from_another_directory(project, monkeypatch):
    monkeypatch.chdir(project / "model")
    train = "[{path: ../rows.jsonl, media_root: ..}]"
    config = compose(["+recipe=sft_lora", f"model.path={project}/model", f"data.train={train}"]).config
    assert resume(config, project / "runs" / "mine")


def test_a_run_resumes_in_a_project_that_was_moved(project, monkeypatch):
    moved = project.rename(project.with_name("moved"))
    monkeypatch.chdir(moved)
    assert resume(settings(), Path("runs/mine"))
    assert resume(settings(model=f"{moved}/model"), moved / "runs" / "mine")


@pytest.mark.parametrize(
    ("changed", "key"), [({"model": "other"}, r"model\.path"), ({"train": "others.jsonl"}, r"data\.train")]
)
@pytest.mark.parametrize("moved", [False, True])
def test_another_file_is_another_run(changed, key, moved, project, monkeypatch):
    if moved:
        monkeypatch.chdir(project.rename(project.with_name("moved")))
    with pytest.raises(UserError, match=f"cannot resume with changed settings: {key} was"):
        resume(settings(**changed), Path("runs/mine"))


def test_changes_are_told_as_a_user_writes_them_and_without_what_they_imply(project):
    """Other data has another number of samples, too, and only the data is told."""
    stored = project / "runs" / "mine"
    counted = {"run": FACTS | {"samples": 480}, "working_directory": str(project)}
    (stored / "environment.json").write_text(json.dumps(counted))
    with pytest.raises(UserError) as raised:
        resume(settings("train.liger=true", train="others.jsonl"), stored, FACTS | {"samples": 5})
    before, now = (f"{{path: {project}/{name}.jsonl, media_root: {project}}}" for name in ("rows", "others"))
    told = f"settings: data.train was {before}, is {now}; train.liger was false, is true. Change them back"
    assert told in str(raised.value)
    plain = compose(["+recipe=sft_lora", "model.path=model", "data.train=[others.jsonl,rows.jsonl]"]).config
    with pytest.raises(
        UserError, match=f"data.train was {{path: .*}}, is \\[{project}/others.jsonl, {project}/rows.jsonl]"
    ):
        resume(plain, stored)
    with pytest.raises(UserError, match="settings: samples was 480, is 5"):
        resume(settings(), stored, FACTS | {"samples": 5})


def test_other_rows_in_a_project_that_was_moved_are_told(project, monkeypatch):
    counted = {"run": FACTS | {"samples": 480}, "working_directory": str(project)}
    (project / "runs/mine/environment.json").write_text(json.dumps(counted))
    monkeypatch.chdir(project.rename(project.with_name("moved")))
    with pytest.raises(UserError, match="settings: samples was 480, is 5"):
        resume(settings(), Path("runs/mine"), FACTS | {"samples": 5})


def test_a_run_of_a_version_that_stored_relative_paths_resumes(project):
    stored = project / "runs" / "mine"
    (stored / "config.yaml").write_text(yaml.safe_dump(settings().model_dump(mode="json")))
    (stored / "environment.json").write_text(json.dumps({"run": FACTS}))
    assert resume(settings(), stored)
    with pytest.raises(UserError, match=r"was 1 × 4 × 1 = 4, is 1 × 4 × 2 = 8 \(train\.accumulation=2 keeps it\)"):
        resume(settings(), stored, FACTS | {"processes": 2})


def test_auto_resumes_with_the_size_of_a_step_that_the_run_had(project):
    stored = project / "runs" / "mine"
    checkpoint = stored / "checkpoints" / "step-1"
    fitted = facts(1, 2520)
    (stored / "environment.json").write_text(json.dumps({"run": fitted}))
    assert first_start_of(checkpoint) == (StepSize(1, 2520), MicroStep(1, 1))
    assert resume(settings(), stored, fitted)
    assert resume(settings("train.accumulation=1", "data.pack_length=2520"), stored, fitted)
    with pytest.raises(
        UserError, match=r"data\.pack_length was 2520, is 8192; train\.batch_size × .+ was 1 × 1 × 1 = 1, is 1 × 4"
    ):
        resume(settings(), stored, FACTS)


@pytest.mark.parametrize("packing", ["true", "false"])
def test_a_run_of_a_version_without_auto_resumes_with_its_fixed_values(packing, project):
    stored, own = project / "runs" / "mine", ("data.max_length=4096", f"data.packing={packing}")
    tree = settings(*own, "train.accumulation=4").model_dump(mode="json")
    del tree["data"]["pack_length"], tree["data"]["train"][0]["columns"]
    (stored / "config.yaml").write_text(yaml.safe_dump(tree))
    (stored / "environment.json").write_text(json.dumps({"run": {"processes": 1}}))
    size, _ = first_start_of(stored / "checkpoints" / "step-1")
    assert size == (4, 4096 if packing == "true" else None)
    assert resume(settings(*own), stored, facts(*size))
    with pytest.raises(UserError, match="was 1 × 4 × 1 = 4, is 1 × 2 × 1 = 2"):
        resume(settings(*own), stored, facts(2, size.pack_length))


def test_the_factors_of_a_step_may_change_but_not_their_product(project):
    stored = project / "runs" / "mine"
    assert resume(settings("train.batch_size=2"), stored, facts(2, 8192, batch_size=2))
    assert resume(settings(), stored, facts(2, 8192, processes=2))
    with pytest.raises(UserError, match=r"train\.batch_size × .+ × processes was 1 × 4 × 1 = 4, is 3 × 1 × 1 = 3\."):
        resume(settings(), stored, facts(1, 8192, batch_size=3))


@pytest.mark.parametrize(("processes", "batch_size", "accumulation"), [(1, 2, 6), (6, 1, 2), (4, 1, 3), (5, 1, 3)])
def test_auto_keeps_the_samples_of_a_step_for_other_processes(processes, batch_size, accumulation):
    """Twelve units a step, if they can be divided."""
    first = FirstStart(StepSize(3, 2520), MicroStep(2, 2))
    config = settings(f"train.batch_size={batch_size}")
    assert first.in_config(config, processes).accumulation == accumulation
