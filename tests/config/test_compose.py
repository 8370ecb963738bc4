import subprocess
import sys

import pytest

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.compose import compose
from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.errors import UserError

LORA = "+recipe=sft_lora"


def test_the_embedded_default_runs_from_a_recipe_alone():
    composed = compose([LORA])
    assert composed.recipe == "sft_lora"
    assert composed.given == frozenset()
    assert composed.config.model.path == str(asset_dir("data") / "tiny")
    assert composed.config.data.eval == (SourceConfig(path=str(asset_dir("data") / "shapes" / "eval.jsonl")),)


def test_given_names_the_values_on_the_command_line():
    words = [LORA, "deepspeed=zero2", "train.lr=1e-3", "lora={rank: 8, alpha: 8}", "data.train={path: a.jsonl}"]
    assert compose(words).given == {"train.lr", "lora.rank", "lora.alpha", "data.train"}


def test_recipe_wins_over_group():
    assert compose([LORA]).config.model.quantize == "none"
    assert compose(["+recipe=sft_qlora"]).config.model.quantize == "nf4"


def test_recipe_wins_over_train_yaml():
    config = compose([LORA]).config
    assert config.tuned("llm")
    assert config.adapted("llm")
    assert not config.tuned("vision")


def test_command_line_wins_over_recipe_and_group():
    config = compose([LORA, "lora.llm=false", "data=shapes", "data.workers=7"]).config
    assert not config.adapted("llm")
    assert config.data.workers == 7


def test_a_group_replaces_the_default_one():
    config = compose([LORA, "model=qwen3_vl_8b", "deepspeed=zero3"]).config
    assert config.model.path == "Qwen/Qwen3-VL-8B-Instruct"
    assert config.model.max_pixels == 1280 * 32 * 32
    assert (config.deepspeed.stage, config.deepspeed.overlap_comm) == (3, True)


@pytest.mark.parametrize(
    ("value", "mode"),
    [("on", "on"), ("off", "off"), ("true", "on"), ("false", "off"), ("as_given", "as_given"), ("auto", "auto")],
)
def test_on_and_off_are_no_truth_values(value, mode, tmp_path):
    assert compose([LORA, f"data.thinking={value}"]).config.data.thinking == mode
    (tmp_path / "mine.yaml").write_text(f"defaults: [sft_lora]\ndata: {{thinking: {value}}}\n")
    assert compose([f"+recipe={tmp_path / 'mine.yaml'}"]).config.data.thinking == mode


def test_another_mode_of_thinking_is_refused():
    with pytest.raises(UserError, match=r"data\.thinking=always: must be 'auto', 'on', 'off' or 'as_given'"):
        compose([LORA, "data.thinking=always"])


@pytest.mark.parametrize("word", ["recipe=sft_lora", "+recipe=sft_lora", "++recipe=sft_lora"])
def test_a_recipe_needs_no_plus(word):
    assert compose([word]).recipe == "sft_lora"


@pytest.mark.parametrize("word", ["train.keep=9", "+train.keep=9", "++train.keep=9"])
def test_a_value_needs_no_plus(word):
    assert compose([LORA, word]).config.train.keep == 9


def test_the_same_value_twice_is_no_problem():
    assert compose([LORA, LORA, "seed=1", "seed=1"]).config.seed == 1


def test_own_files_are_not_evaluated_on_the_embedded_ones():
    assert compose([LORA, "data.train=a.jsonl"]).config.data.eval is None
    assert compose([LORA, "data=shapes", "data.train=a.jsonl"]).config.data.eval is not None


def test_an_own_checkpoint_is_not_held_to_the_default_family():
    model = compose([LORA, "model.path=somewhere"]).config.model
    assert (model.path, model.family) == ("somewhere", None)
    named = compose([LORA, "model=qwen2_5_vl_7b", "model.path=copy"]).config.model
    assert (named.path, named.family, named.max_pixels) == ("copy", "qwen2_5_vl", 1280 * 28 * 28)


@pytest.mark.parametrize(
    ("word", "sources"),
    [
        ("data.train=a.jsonl", [SourceConfig(path="a.jsonl")]),
        ("data.train=[a.jsonl,b.jsonl]", [SourceConfig(path="a.jsonl"), SourceConfig(path="b.jsonl")]),
        ("data.train={path:a.jsonl,media_root:m}", [SourceConfig(path="a.jsonl", media_root="m")]),
        ("data.train=[{path:a,format:llava},b]", [SourceConfig(path="a", format="llava"), SourceConfig(path="b")]),
        ("data.train=~/a.jsonl", [SourceConfig(path="~/a.jsonl")]),
        ("data.train=数据/a.jsonl", [SourceConfig(path="数据/a.jsonl")]),
        ("data.train='a=b,(c).jsonl'", [SourceConfig(path="a=b,(c).jsonl")]),
        ("data.train=parts/*.jsonl", [SourceConfig(path="parts/*.jsonl")]),
        ("data.train=2024", [SourceConfig(path="2024")]),
        ("data.train=${asset:data/x/y.jsonl}", [SourceConfig(path=str(asset_dir("data") / "x" / "y.jsonl"))]),
    ],
)  # fmt: skip
def test_sources_as_they_are_written(word, sources):
    assert list(compose([LORA, word]).config.data.train) == sources


@pytest.mark.parametrize("name", ["007", "2024_01", "1e5", "12.50", "true"])
def test_text_that_reads_as_a_number_stays_as_written(name):
    assert compose([LORA, f"run_name={name}"]).config.run_name == name


def test_the_changes_to_a_recipe_are_known(tmp_path):
    assert compose(["+recipe=sft_lora", "run_name=mine"]).changes() == {}
    changes = compose(["+recipe=sft_lora", "train.lr=1e-3", "deepspeed=zero2"]).changes()
    assert changes["train.lr"] == (2e-4, 1e-3)
    assert changes["deepspeed.stage"] == (0, 2)
    own = tmp_path / "mine.yaml"
    own.write_text("defaults: [sft_lora]\ntrain: {lr: 5e-4}\nplan: {devices: 8}\n")
    changes = compose([f"+recipe={own}", "lora.rank=4"]).changes()
    assert changes["lora.rank"] == (16, 4)
    assert not {"train.lr", "plan.devices"} & changes.keys()
    assert compose(["tune_mm_llm=true"]).changes() == {}


def test_values_of_the_embedded_example_are_no_changes(tmp_path):
    """They go away with the example. Those of a group that is named count."""
    rows = tmp_path / "my.jsonl"
    example = compose(["+recipe=sft_lora"]).config
    composed = compose(["+recipe=sft_lora", "model=qwen2_5_vl_7b", f"data.train={rows}", "train.epochs=2"])
    assert composed.config.lora.alpha != example.lora.alpha
    assert composed.config.data.workers != example.data.workers
    changes = composed.changes()
    assert changes["data.train"][1] == str(rows)
    assert changes["model.path"] == (example.model.path, "Qwen/Qwen2.5-VL-7B-Instruct")
    assert changes["train.epochs"][1] == 2
    own = {key for key in changes if not key.startswith("model.")}
    assert own == {"data.train", "train.epochs"}
    assert compose(["+recipe=sft_lora", f"data.train={rows}", "lora.alpha=9"]).changes()["lora.alpha"] == (128, 9)


@pytest.mark.parametrize(
    ("words", "epochs", "max_steps"),
    [
        (["train.max_steps=5"], None, 5),
        (["train.epochs=0.5"], 0.5, None),
        (["train.epochs=2", "train.max_steps=null"], 2, None),
        (["train={max_steps: 5}"], None, 5),
    ],
)
def test_the_given_length_of_training_replaces_the_default_one(words, epochs, max_steps):
    train = compose([LORA, *words]).config.train
    assert (train.epochs, train.max_steps) == (epochs, max_steps)


def test_configuration_imports_no_torch():
    code = (
        "import sys; from qwenvl_train.config.compose import compose; compose(['+recipe=sft_lora']);"
        "print([name for name in ('torch', 'transformers', 'trl', 'peft', 'datasets') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
