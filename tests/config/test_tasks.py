"""+task= sets what answers are like and how they are scored, between the groups and the recipe."""

from pathlib import Path

import pytest

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.compose import compose
from qwenvl_train.config.options import Names
from qwenvl_train.errors import UserError
from qwenvl_train.tasks.table import TASKS
from qwenvl_train.verbs.table import load_verb


def test_a_task_sets_metrics_for_ones_own_rows():
    config = compose(["+recipe=sft_lora", "+task=grounding", "data.train=mine.jsonl"]).config
    assert (config.eval.metrics, config.eval.generate) == (("grounding",), True)
    assert (config.data.max_length, config.data.eval) == (8192, None)


def test_the_command_line_and_a_recipe_override_a_task(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("defaults: [sft_lora, {task: grounding}]\ndata: {train: a.jsonl}\neval: {max_new_tokens: 7}\n")
    config = compose([f"+recipe={own}", "eval.metrics=[contains]"]).config
    assert (config.eval.max_new_tokens, config.eval.metrics, config.eval.generate) == (7, ("contains",), True)


def test_a_task_of_ones_own_is_a_file(tmp_path):
    for name in ("task", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "task" / "signs.yaml").write_text("eval: {generate: true, metrics: [contains]}\n")
    words = ["+recipe=sft_lora", "+task=signs", "data.eval=held_out.jsonl"]
    with pytest.raises(UserError, match=r"data\.train is not set"):
        compose(words, names=Names.within(tmp_path))
    config = compose([*words, "data.train=mine.jsonl"], names=Names.within(tmp_path)).config
    assert (config.eval.metrics, config.data.train[0].path) == (("contains",), "mine.jsonl")
    # Its sample set is the option of the group data with its name.
    (tmp_path / "data" / "signs.yaml").write_text("train: rows.jsonl\n")
    config = compose(words, names=Names.within(tmp_path)).config
    assert config.data.train[0].path == str(tmp_path / "data" / "rows.jsonl")


def test_a_run_keeps_its_own_settings(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(UserError, match="task has no effect on a run, whose own settings are used"):
        compose(["+task=grounding", f"run={tmp_path}"], load_verb("eval"))
    with pytest.raises(UserError, match="run and model both name a model"):
        compose(["model=tiny", f"run={tmp_path}"], load_verb("eval"))


def test_data_that_is_named_is_not_that_of_the_run(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {eval: [{path: mine.jsonl}]}\n")
    (tmp_path / "environment.json").write_text("{}")
    own, named = (
        compose([f"run={tmp_path}", *words], load_verb("eval")).config.data.eval_entries[0].path
        for words in ((), ("data=shapes",))
    )
    assert (Path(own).name, named) == ("mine.jsonl", str(asset_dir("data") / "shapes" / "eval.jsonl"))


@pytest.mark.parametrize(("task", "given"), [("grounding", "[a,b]"), ("recognition", "{name:[a,b]}")])
def test_prompts_by_form_and_for_all_forms_replace_each_other(task, given):
    words = [f"+task={task}", "source=a", "to=b.jsonl", f"convert.prompts={given}"]
    prompts = compose(words, load_verb("convert")).config.convert.prompts
    assert prompts == (("a", "b") if task == "grounding" else {"name": ("a", "b")})


@pytest.mark.parametrize("task", TASKS)
def test_a_task_comes_with_a_sample_set_and_a_model(task):
    config = compose(["+recipe=sft_lora", f"+task={task}"]).config
    folder = asset_dir("data")
    assert config.model.path == str(folder / "tiny_tasks")
    assert (config.data.train[0].path, config.data.eval[0].path) == tuple(
        str(folder / task / f"{split}.jsonl") for split in ("train", "eval")
    )
    # Its small rows need other limits than those of users, which are the task's.
    assert (config.model.min_pixels, config.data.max_length < 2048) == (None, True)
    own = compose(["+recipe=sft_lora", f"+task={task}", "data.train=mine.jsonl", "data.eval=5%"]).config
    assert (own.model.path, own.data.train[0].path) == (str(folder / "tiny"), "mine.jsonl")
    assert own.eval.max_new_tokens >= config.eval.max_new_tokens


@pytest.mark.parametrize(("data", "model"), [("grounding", "tiny_tasks"), ("shapes", "tiny"), ("mine.yaml", "tiny")])
def test_only_the_sample_set_of_a_task_comes_with_its_model(data, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("train: rows.jsonl\n")
    config = compose(["+recipe=sft_lora", "+task=grounding", f"data={data}"]).config
    assert config.model.path == str(asset_dir("data") / model)


def test_the_settings_of_a_sample_set_are_below_those_of_the_user():
    words = ["+recipe=sft_lora", "+task=documents", "model=qwen3_vl_2b", "model.min_pixels=50176", "train.epochs=2"]
    config = compose(words).config
    assert config.model.path == "Qwen/Qwen3-VL-2B-Instruct"
    assert (config.model.min_pixels, config.model.max_pixels, config.train.epochs) == (50176, None, 2)
    own = compose([*words[:3], "data.train=mine.jsonl", "data.eval=5%"]).config
    assert (own.model.min_pixels, own.data.max_length, own.eval.max_new_tokens) == (401408, 16384, 8192)
