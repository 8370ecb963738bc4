"""A user's own YAML files: recipes and options of groups that are files, and runs that repeat a run."""

import os
from pathlib import Path

import pytest
import yaml

from qwenvl_train.config.compose import compose
from qwenvl_train.config.options import recipe_files
from qwenvl_train.errors import UserError
from qwenvl_train.verbs.filter.settings import FILTER
from qwenvl_train.verbs.plan.settings import PLAN


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file below a folder that is not the working directory."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def write(name: str, text: str) -> str:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return os.path.relpath(path)

    return write


def test_a_recipe_builds_on_another_one(write):
    write("base.yaml", "defaults: [sft_lora]\nlora: {rank: 4}\ntrain: {lr: 1.0e-3, keep: 7}\n")
    mine = write("own.yaml", "defaults: [./base.yaml, {deepspeed: zero2}]\ntrain:\n  lr: 2.0e-3\nlogging:\n# nothing\n")
    composed = compose([f"+recipe={mine}", "train.keep=8"])
    config = composed.config
    assert (config.lora.llm, config.lora.rank, config.train.lr, config.train.keep) == (True, 4, 2e-3, 8)
    assert config.deepspeed.stage == 2
    assert composed.recipe == "own"
    assert {"lora.rank", "train.lr", "train.keep"} <= composed.given


def test_a_recipe_that_two_files_build_on_overrides_neither(write):
    write("rate.yaml", "defaults: [sft_lora]\ntrain: {lr: 1.0e-3}\n")
    write("short.yaml", "defaults: [sft_lora]\ntrain: {max_steps: 5}\n")
    train = compose([f"+recipe={write('own.yaml', 'defaults: [rate.yaml, short.yaml]')}"]).config.train
    assert (train.lr, train.max_steps) == (1e-3, 5)


def test_where_self_stands_decides_who_overrides_whom(write):
    mine = write("own.yaml", "defaults: [_self_, sft_lora]\ntrain: {lr: 1.0, keep: 7}\n")
    train = compose([f"+recipe={mine}"]).config.train
    assert (train.lr, train.keep) == (2e-4, 7)


def test_what_a_file_sets_counts_as_set_by_the_user(write, tmp_path):
    text = "defaults: [sft_lora]\ndata: {train: rows.jsonl}\nmodel: {path: checkpoint}\ntrain: {max_steps: 9}\n"
    (tmp_path / "mine" / "checkpoint").mkdir(parents=True)
    config = compose([f"+recipe={write('own.yaml', text)}"]).config
    assert config.data.eval is None  # not the embedded shapes
    assert config.data.max_length == 8192
    assert config.model.family is None
    assert (config.train.epochs, config.train.max_steps) == (None, 9)
    # Relative paths start at the file.
    assert config.data.train[0].path == str(tmp_path / "mine" / "rows.jsonl")
    assert config.model.path == str(tmp_path / "mine" / "checkpoint")
    mine = write("own.yaml", text.replace("max_steps: 9", "lr_vision: 1.0e-6"))
    with pytest.raises(UserError, match=r"own.yaml: train.lr_vision has no effect"):
        compose([f"+recipe={mine}"])


def test_a_choice_on_the_command_line_overrides_that_of_a_file(write):
    mine = write("own.yaml", "defaults: [sft_lora, {override /deepspeed: zero2}, {data: shape_pairs}]\n")
    config = compose([f"+recipe={mine}", "deepspeed=none"]).config
    assert config.deepspeed.stage == 0
    assert config.data.train[0].path.endswith("train_pairs.jsonl")


def test_epochs_on_the_command_line_replace_the_steps_of_a_file(write):
    mine = write("own.yaml", "defaults: [sft_lora]\ntrain: {max_steps: 9}\n")
    train = compose([f"+recipe={mine}", "train.epochs=2"]).config.train
    assert (train.epochs, train.max_steps) == (2, None)


def test_an_option_of_a_group_may_be_a_file(write, tmp_path):
    model = write("model.yaml", "path: Qwen/Qwen2.5-VL-7B-Instruct\nmax_pixels: 200704\n")
    data = write(
        "data.yaml",
        "data:\n  train: [{path: a.jsonl, media_root: media}, b/*.jsonl, someone/pictures]\n  eval: e.jsonl\n",
    )
    config = compose(["+recipe=sft_lora", f"model={model}", f"data={data}", "data.workers=3"]).config
    assert (config.model.path, config.model.max_pixels) == ("Qwen/Qwen2.5-VL-7B-Instruct", 200704)
    here = tmp_path / "mine"
    assert [entry.path for entry in config.data.train] == [
        str(here / "a.jsonl"), str(here / "b" / "*.jsonl"), "someone/pictures",
    ]  # fmt: skip
    assert config.data.train[0].media_root == str(here / "media")
    assert (config.data.eval[0].path, config.data.workers) == (str(here / "e.jsonl"), 3)


def test_a_file_of_a_group_builds_on_an_option_or_another_file(write):
    write("base.yaml", "defaults: [strict]\nunfinished: {use: mark}\nlengths: {use: mark, max_turns: 5}\n")
    mine = write("mine.yaml", "defaults: [base.yaml]\nlengths: {max_turns: 9}\n")
    config = compose([f"+filter={mine}", "data.train=a.jsonl", "filter.to=out"], FILTER).config.filter
    assert (config.unfinished.use, config.lengths.use, config.lengths.max_turns) == ("mark", "mark", 9)
    assert (config.repeated_ngrams.max_share, config.leaked_answer.use) == (0.2, "drop")  # of strict


def test_a_recipe_chooses_files_of_groups(write):
    write("model.yaml", "path: Qwen/Qwen3-VL-8B-Instruct\n")
    mine = write("own.yaml", "defaults: [sft_lora, {model: model.yaml}]\n")
    assert compose([f"+recipe={mine}"]).config.model.path == "Qwen/Qwen3-VL-8B-Instruct"


def test_a_file_may_hold_the_settings_of_several_verbs(write):
    mine = write("own.yaml", "defaults: [sft_lora]\nplan: {devices: 8}\ninspect: {samples: 3}\n")
    assert compose([f"+recipe={mine}"], PLAN).config.plan.devices == 8
    compose([f"+recipe={mine}"])


def test_the_settings_of_a_run_are_a_recipe(write, tmp_path):
    settings = ["+recipe=sft_lora", "data.train=/rows.jsonl", "data.eval=/held_out.jsonl", "train.max_steps=9"]
    (tmp_path / "step-3").mkdir()
    resumed = f"train.resume={tmp_path / 'step-3'}"
    first = compose([*settings, "run_name=first", "model.path=/checkpoint", resumed]).config
    write("first/environment.json", "{}")
    stored = write("first/config.yaml", yaml.safe_dump(first.model_dump(mode="json")))
    again = compose([f"+recipe={stored}"])
    fresh = first.train.model_copy(update={"resume": "auto"})
    assert again.config == first.model_copy(update={"run_name": None, "train": fresh})
    assert (again.recipe, again.given) == ("first", frozenset())
    changed = compose([f"+recipe={stored}", "train.epochs=1"]).config.train
    assert (changed.epochs, changed.max_steps) == (1, None)


def test_an_option_that_is_named_replaces_what_a_run_has_for_its_group(write):
    rows = "data.train=/rows.jsonl"
    first = compose(["+recipe=sft_full", rows, "data.eval=/held_out.jsonl", "deepspeed=zero3"]).config
    write("first/environment.json", "{}")
    stored = write("first/config.yaml", yaml.safe_dump(first.model_dump(mode="json")))
    mine = write("own.yaml", f"defaults: [{stored}, {{deepspeed: zero2}}]\n")
    for words in ([f"+recipe={stored}", "deepspeed=zero2"], [f"+recipe={mine}"]):
        again = compose(words)
        assert again.config.deepspeed.stage == 2
        assert again.config.data == first.data
    changes = compose([f"+recipe={stored}", "deepspeed=zero2"]).changes()
    assert changes == {"deepspeed.stage": (3, 2)}
    with pytest.raises(UserError, match="task has no effect on a run"):
        compose([f"+recipe={stored}", "+task=grounding"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "own.yaml cannot be read as YAML: .* line 1"),
        ("- sft_lora\n", "own.yaml: must hold settings"),
        ("", "no component is trained"),
        ("train: {lrr: 1}\n", "own.yaml: train.lrr=1: there is no such setting; did you mean train.lr"),
        ("train: {lr: fast}\n", "own.yaml: train.lr=fast: must be a number"),
        ("defaults: sft_lora\n", "own.yaml: defaults must be a list"),
        ("defaults: [sft_lara]\n", "own.yaml: defaults: there is no recipe sft_lara, did you mean sft_lora"),
        ("defaults: [own.yaml]\n", "own.yaml: its defaults lead back to itself: .*own.yaml → .*own.yaml"),
        ("defaults: [other.yaml]\n", "own.yaml: defaults: there is no file .*/mine/other.yaml"),
        ("defaults: [{data: shapez}]\n", "own.yaml: defaults: there is no data shapez, did you mean shapes"),
        ("defaults: [{hydra: x}]\n", "own.yaml: defaults: {'hydra': 'x'} is neither a recipe nor an option of"),
        ("defaults: [[a]]\n", r"own.yaml: defaults: \['a'\] is neither a recipe nor an option of"),
        ("defaults: [sft_lora]\nlora: {llm: false, rank: 3}\n", "own.yaml: lora.rank has no effect"),
        ("defaults: [sft_lora]\ntrain: {lr: '${nowhere}'}\n", "train.lr: Interpolation key 'nowhere' not found"),
    ],
)
def test_a_mistake_names_the_file(text, message, write):
    with pytest.raises(UserError, match=message):
        compose([f"+recipe={write('own.yaml', text)}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: [qwen3_vl_8]", r"model\.yaml: defaults: there is no model qwen3_vl_8, did you mean qwen3_vl_8b"),
        ("defaults: qwen3_vl_8b", r"model\.yaml: defaults must be a list with the one model that"),
        ("defaults: [model.yaml]", r"model\.yaml: its defaults lead back to itself: .* → .*model\.yaml"),
        ("defaults: [other.yaml]", r"model\.yaml: defaults: there is no file .*/mine/other\.yaml"),
        ("path: y\npathh: x", r"model\.yaml: model\.pathh=x: there is no such setting; did you mean model\.path"),
        ("model: x", r"model\.yaml: model must be a mapping"),
    ],
)
def test_a_file_of_a_group_holds_that_group_alone(text, message, write):
    with pytest.raises(UserError, match=message):
        compose(["+recipe=sft_lora", f"model={write('model.yaml', text)}"])


def test_a_path_that_is_no_file_is_an_error(write, tmp_path):
    with pytest.raises(UserError, match=r"recipe=nowhere.yaml: there is no file .*/elsewhere/nowhere.yaml"):
        compose(["+recipe=nowhere.yaml"])
    write("first/config.yaml", "{}")
    with pytest.raises(UserError, match=r"is a folder; did you mean \+recipe=../mine/first/config.yaml"):
        compose(["+recipe=../mine/first/"])


def test_recipes_of_the_package_are_read_as_before():
    for name, path in recipe_files().items():
        assert compose([f"+recipe={name}"]).config == compose([f"+recipe={Path(path)}"]).config
