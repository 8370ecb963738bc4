import json
import os
import subprocess
from pathlib import Path

import numpy
import pytest
import yaml

from qwenvl_train.reporting.folder import RunFolder, checkout, write_json_atomic

from .rows import COMPONENTS, CONFIG, SUMMARY


def test_every_file_reads_back_as_it_was_given(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "receipts")
    folder.write_config(CONFIG)
    folder.write_components(COMPONENTS)
    folder.write_summary(SUMMARY)
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == CONFIG
    assert json.loads((folder.path / "components.json").read_text()) == COMPONENTS
    assert json.loads((folder.path / "summary.json").read_text()) == SUMMARY


def test_config_keeps_the_order_of_its_keys_and_takes_tuples(tmp_path):
    RunFolder(tmp_path).write_config({"seed": 0, "model": {"path": Path("m")}, "tags": ("b", "a")})
    assert (tmp_path / "config.yaml").read_text() == "seed: 0\nmodel:\n  path: m\ntags:\n- b\n- a\n"


def test_predictions_are_a_line_each_in_plain_letters(tmp_path):
    rows = [{"id": "a", "expected": "Größe\n12"}, {"id": "b", "expected": "大"}]
    RunFolder(tmp_path).write_predictions(rows)
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert "Größe" in lines[0]


def test_numbers_of_numpy_are_written_and_unknown_things_are_refused(tmp_path):
    write_json_atomic(tmp_path / "a.json", {"loss": numpy.float32(0.5), "steps": numpy.int64(3)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 0.5, "steps": 3}
    with pytest.raises(TypeError, match="object"):
        write_json_atomic(tmp_path / "a.json", {"what": object()})


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.write_summary({"status": "done"})

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write_summary({"status": "failed"})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"status": "done"}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_the_file_is_complete_before_it_gets_its_name(tmp_path, monkeypatch):
    seen = []
    rename = Path.replace

    def watch(aside: Path, path: Path) -> Path:
        seen.append((path.exists(), json.loads(aside.read_text())))
        return rename(aside, path)

    monkeypatch.setattr(Path, "replace", watch)
    RunFolder(tmp_path).write_summary(SUMMARY)
    assert seen == [(False, SUMMARY)]


def test_environment_names_versions_and_hardware(tmp_path):
    RunFolder(tmp_path).write_environment(
        ["NVIDIA H100"], {"processes": 2}, {"model": {"path": "m"}, "recipe": "sft_lora"}
    )
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["packages"]["transformers"].split(".")[0].isdigit()
    assert found["hardware"]["gpus"] == ["NVIDIA H100"]
    assert found["hardware"]["cores"] == os.cpu_count()
    assert found["hardware"]["memory_gib"] > 0
    assert found["hardware"]["cpu"]


def test_each_start_of_a_run_is_recorded(tmp_path):
    def steps() -> list[int]:
        return [start["step"] for start in json.loads((tmp_path / "environment.json").read_text())["starts"]]

    folder = RunFolder(tmp_path)
    for start_step, expected in ((0, [0]), (40, [0, 40]), (60, [0, 40, 60]), (0, [0])):
        folder.write_environment([], {}, {}, start_step)
        assert steps() == expected
    (tmp_path / "environment.json").write_text("{")
    folder.write_environment([], {}, {}, 80)
    assert steps() == [80]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "qwenvl_train").mkdir()
    return tmp_path


def test_checkout_tells_the_commit_and_whether_files_were_changed(repository):
    head = subprocess.check_output(["git", "-C", str(repository), "rev-parse", "HEAD"], text=True).strip()
    assert checkout(repository / "qwenvl_train") == {"commit": head, "uncommitted_changes": False}
    (repository / "a.py").touch()
    subprocess.run(["git", "-C", str(repository), "add", "a.py"], check=True)
    assert checkout(repository / "qwenvl_train") == {"commit": head, "uncommitted_changes": True}


def test_an_installed_package_does_not_take_the_commit_of_the_project_around_it(repository):
    installed = repository / ".venv" / "site-packages" / "qwenvl_train"
    installed.mkdir(parents=True)
    assert checkout(installed) is None


def test_checkout_without_git_is_unknown(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert checkout(repository / "qwenvl_train") is None
