"""--config-dir: recipes and options of a user's own folder, found by name beside the shipped ones."""

import re

import pytest

from qwenvl_train.cli import main
from qwenvl_train.config.compose import compose
from qwenvl_train.config.flags import Flags, read_flags
from qwenvl_train.config.options import Names
from qwenvl_train.config.sweep import jobs_of
from qwenvl_train.config.verb import TRAIN
from qwenvl_train.errors import UserError


@pytest.fixture
def folder(tmp_path):
    files = {
        "mine.yaml": "# My recipe.\ndefaults: [team/base, {model: my_model}]\ntrain: {lr: 3.0e-4}\n",
        "recipe/team/base.yaml": "defaults: [sft_lora]\nlora: {rank: 5}\n",
        "model/my_model.yaml": "path: Qwen/Qwen2.5-VL-7B-Instruct\n",
        "data/my_rows.yaml": "train: rows.jsonl\n",
    }
    for name, text in files.items():
        path = tmp_path / "my_configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "my_configs"


def test_names_of_the_folder_work_as_the_shipped_ones_do(folder):
    composed = compose(["+recipe=mine", "data=my_rows"], TRAIN, Names.within(folder))
    config = composed.config
    assert (composed.recipe, config.lora.rank, config.train.lr) == ("mine", 5, 3e-4)
    assert config.model.path == "Qwen/Qwen2.5-VL-7B-Instruct"
    # What these files set counts as set by the user, and their relative paths start at the file.
    assert config.data.train[0].path == str(folder / "data" / "rows.jsonl")
    assert config.data.eval is None
    assert "train.lr" in composed.given
    assert compose(["+recipe=sft_lora"], TRAIN, Names.within(folder)).config.lora.rank == 16


def test_a_sweep_takes_names_and_hands_the_folder_on(folder):
    found = jobs_of(["+recipe=glob(m*)", "data=files", "data.train=x.jsonl"], TRAIN, Names.within(folder))
    assert [job.name for job in found] == ["recipe-mpo_lora", "recipe-mine"]
    assert all(job.arguments[0] == f"--config-dir={folder}" for job in found)


def test_help_shows_them(folder, capsys):
    assert main(["--config-dir", str(folder), "--help"]) == 0
    out = capsys.readouterr().out
    assert "mine           My recipe." in out
    assert "team/base" in out
    assert "my_model" in out


@pytest.mark.parametrize(
    ("words", "flags", "rest"),
    [
        (["--config-dir", "a", "x=1"], Flags(False, "a"), ["x=1"]),
        (["x=1", "--config-dir=a", "-m"], Flags(True, "a"), ["x=1"]),
        (["-cd", "a", "--multirun"], Flags(True, "a"), []),
        (["plan", "-x"], Flags(False, None), ["plan", "-x"]),
    ],
)
def test_flags_are_spelt_as_in_hydra(words, flags, rest):
    found, others = read_flags(words)
    assert (found.several, found.folder and str(found.folder), others) == (flags.several, flags.folder, rest)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir"], "--config-dir: give a folder"),
        (["--config-dir=a", "--config-dir", "b"], "--config-dir is given twice"),
        (["--config-dir=nowhere"], "--config-dir=nowhere: there is no such folder"),
        (["--config-dir=."], "the folder has no recipe .* and no option of a group .*model/"),
        (["--config-dir=my_configs", "+recipe=mine", "model=my_modell"], "did you mean model=my_model?"),
    ],
)
def test_a_mistake_is_one_sentence(words, message, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(message, err)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model/tiny.yaml", "tiny.yaml: model=tiny is the name of a shipped one; rename the file"),
        ("sft_lora.yaml", "sft_lora.yaml: recipe=sft_lora is the name of a shipped one"),
        ("recipe/mine.yaml", "mine.yaml: .*mine.yaml has the name mine, too"),
    ],
)
def test_no_name_replaces_another(name, message, folder):
    (folder / name).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        Names.within(folder)


def test_a_file_in_the_folder_that_is_no_yaml_is_named(folder):
    (folder / "mine.yaml").write_text("train: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.yaml cannot be read as YAML"):
        compose(["+recipe=mine"], TRAIN, Names.within(folder))
