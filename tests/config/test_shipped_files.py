"""Every YAML file of the project composes, and its keys and values match the schema."""

import shlex

import pytest
from omegaconf import OmegaConf

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.compose import compose
from qwenvl_train.config.keys import keys_of
from qwenvl_train.config.options import groups, recipe_files, recipe_summary
from qwenvl_train.config.verb import TRAIN, Verb
from qwenvl_train.verbs.table import VERBS, load_verb

RECIPES = recipe_files()
OPTIONS = [f"{group}={option}" for group, options in groups().items() for option in options]
OWN = {"model=custom": ["model.path=mine"], "data=files": ["data.train=mine.jsonl"]}
WITHOUT_SAMPLES = [f"task={task}" for task in groups()["task"] if task not in groups()["data"]]
OWN |= {option: ["data.train=mine.jsonl"] for option in WITHOUT_SAMPLES}


def verb_of(option: str) -> Verb:
    """Return the verb that an option is for: any, unless its group is named like a verb. A task has settings of
    convert, too, which other verbs leave out."""
    group = option.partition("=")[0]
    return load_verb(group) if group in VERBS else TRAIN


def commands(recipe: str) -> list[str]:
    """Return the commands in the header comment of a recipe."""
    lines = RECIPES[recipe].read_text(encoding="utf-8").splitlines()
    return [line.lstrip("# ") for line in lines if line.startswith("#   qwenvl-train ")]


def test_no_yaml_is_out_of_reach():
    """Hydra's groups here are one folder deep: configs/<group>/<option>.yaml."""
    files = {path.relative_to(asset_dir("configs")).as_posix() for path in asset_dir("configs").rglob("*.y*ml")}
    assert files == {f"{verb}.yaml" for verb in VERBS} | {f"{option.replace('=', '/')}.yaml" for option in OPTIONS}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_composes_alone(recipe):
    composed = compose([f"+recipe={recipe}"])
    assert composed.recipe == recipe


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_how_and_never_what(recipe):
    assert set(OmegaConf.load(RECIPES[recipe])) <= {
        "defaults", "dpo", "lora", "method", "model", "optim", "train",
        *(
f"tune_mm_{component}" for component in ("vision", "mlp", "llm")),
    }  # fmt: skip
    composed = compose([f"+recipe={recipe}"]).config
    # A recipe selects the embedded data for its method.
    data = {"sft": "data=shapes", "dpo": "data=shape_pairs"}[composed.method]
    default = compose(["+recipe=sft_lora", data]).config
    assert (composed.data, composed.model.path) == (default.data, default.model.path)
    assert compose([f"+recipe={recipe}", "data.train=mine.jsonl"]).config.data.max_length == 8192


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_headed_by_its_commands(recipe):
    assert recipe_summary(RECIPES[recipe]).endswith(".")
    embedded, *real = commands(recipe)
    assert embedded == f"qwenvl-train +recipe={recipe}"
    assert real
    for command in real:
        config = compose(shlex.split(command)[1:]).config
        assert config.model.path.startswith("Qwen/")
        assert config.data.eval is not None


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("deepspeed", groups()["deepspeed"])
def test_a_recipe_runs_on_several_devices(recipe, deepspeed):
    if recipe == "sft_qlora" and deepspeed.startswith("zero3"):
        pytest.skip("4-bit weights are not sharded")
    compose([f"+recipe={recipe}", f"deepspeed={deepspeed}"])


@pytest.mark.parametrize("option", OPTIONS)
def test_a_group_option_composes(option):
    verb = verb_of(option)
    needed = ["filter.to=out", "data.train=a.jsonl"] if verb.name == "filter" else []
    compose(["+recipe=sft_lora", option, *OWN.get(option, []), *needed], verb)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.startswith("model=qwen")])
def test_a_published_model_has_sane_pixel_limits(option):
    model = compose(["+recipe=sft_lora", option]).config.model
    side = 32 if model.family.startswith("qwen3") else 28
    assert (model.min_pixels, model.max_pixels) == (4 * side**2, 1280 * side**2)
    assert option.removeprefix("model=").replace("_", "-") == (
        model.path.removeprefix("Qwen/").removesuffix("-Instruct").lower().replace(".", "-")
    )


@pytest.mark.parametrize("verb", VERBS)
def test_yaml_and_schema_have_the_same_keys(verb):
    folder, keys = asset_dir("configs"), keys_of(load_verb(verb).config)
    tree = OmegaConf.to_container(OmegaConf.load(folder / "train.yaml"))
    own = OmegaConf.to_container(OmegaConf.load(folder / f"{verb}.yaml"))
    if verb == "eval":
        own["eval"] = tree["eval"] | own["eval"]  # its section of train.yaml, with other defaults and further keys
    tree |= own
    del tree["defaults"]
    full = {"model": "custom", "data": "files", "deepspeed": "none", "optim": "adamw", "logging": "default"}
    if verb == "filter":
        full |= {"filter": "report"}
    own = {group for group in groups() if verb_of(f"{group}=").name in (verb, "train")}
    assert full.keys() == own - {"task"}
    for group, option in full.items():
        tree[group] = OmegaConf.to_container(OmegaConf.load(folder / group / f"{option}.yaml")) | tree.get(group, {})
    in_yaml = [key for name, value in tree.items() for key, _ in keys.leaves(name, value)]
    assert sorted(in_yaml) == sorted(keys.fields)


def test_every_value_key_of_every_option_is_in_the_schema():
    for option in OPTIONS:
        group, name = option.split("=")
        keys = keys_of((load_verb("convert") if group == "task" else verb_of(option)).config)
        path = asset_dir("configs") / group / f"{name}.yaml"
        tree = OmegaConf.to_container(OmegaConf.load(path))
        tree.pop("defaults", None)
        whole = tree if path.read_text(encoding="utf-8").startswith("# @package _global_") else {group: tree}
        leaves = (keys.leaves(name, value) for name, value in whole.items())
        assert {key for found in leaves for key, _ in found} <= set(keys.fields), option
