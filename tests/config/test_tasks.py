"""+task= sets what answers are like and how they are scored, between the groups and the recipe."""

import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.config.options import Names
from qwenvl_train.errors import UserError
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


@pytest.mark.parametrize(("task", "given"), [("grounding", "[a,b]"), ("recognition", "{name:[a,b]}")])
def test_prompts_by_form_and_for_all_forms_replace_each_other(task, given):
    words = [f"+task={task}", "source=a", "to=b.jsonl", f"convert.prompts={given}"]
    prompts = compose(words, load_verb("convert")).config.convert.prompts
    assert prompts == (("a", "b") if task == "grounding" else {"name": ("a", "b")})
