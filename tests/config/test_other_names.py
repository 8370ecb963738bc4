"""Names and commands of other frameworks."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from qwenvl_train.config.compose import compose
from qwenvl_train.config.keys import keys_of
from qwenvl_train.config.options import recipe_files
from qwenvl_train.config.other_names import OTHER_NAMES, WITHOUT_SETTING
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.errors import UserError

PAGE = (Path(__file__).parents[2] / "docs" / "from_others.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_suggestion_is_a_setting(name):
    meant = re.split(r"[=,]", OTHER_NAMES[name])[0]
    assert meant in keys_of(RunConfig).fields or OTHER_NAMES[name].removeprefix("+recipe=") in recipe_files()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("learning_rate=1e-4", "did you mean train.lr?"),
        ("train.learning_rate=1e-4", "did you mean train.lr?"),
        ("--learning-rate=1e-4", "write settings as key=value; did you mean train.lr?"),
        ("freeze_vit=true", "did you mean tune_mm_vision, which means the opposite?"),
        ("save_total_limit=2", "did you mean train.keep?"),
        ("lora_r=8", "did you mean lora.rank?"),
    ],
)
def test_a_name_of_others_is_translated(word, message):
    with pytest.raises(UserError, match=re.escape(message)):
        compose(["+recipe=sft_lora", word])


@pytest.mark.parametrize("word", ["deepspeed.sequence_parallel=2", "train.sequence_parallel_size=2", "--cp-size=2"])
def test_what_is_not_supported_is_refused_with_the_reason(word):
    with pytest.raises(UserError, match="sequence parallelism is not supported, because DeepSpeed's takes neither"):
        compose(["+recipe=sft_lora", word])


def test_a_key_of_ours_is_not_translated():
    assert not {key.rpartition(".")[2] for key in keys_of(RunConfig).fields} & (OTHER_NAMES | WITHOUT_SETTING).keys()


def test_the_commands_of_the_page_compose():
    commands = re.findall(r"^    (?:torchrun .*-m qwenvl_train|qwenvl-train) (\+recipe=.*)", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert compose(shlex.split(command)).config.model.path.startswith("Qwen/")


def test_the_recipe_of_the_page_is_what_the_table_says(tmp_path):
    theirs, ours = (text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(ours)
    config = compose([f"+recipe={recipe}"]).config
    given = yaml.safe_load(theirs)
    values = config.model_dump()
    for name, setting in OTHER_NAMES.items():
        if name in given and setting in keys_of(RunConfig).fields and setting != "data.train":
            section, _, key = setting.partition(".")
            assert values[section][key] == given[name], name
    assert (config.train.precision, config.lora.llm, config.tune_mm_mlp) == ("bf16", True, False)
