"""Recipes can be sorted into folders, and are then named by their path."""

import pytest

from qwenvl_train.config import assets, compose, options
from qwenvl_train.verbs.table import VERBS, load_verb


@pytest.fixture
def assets_with_nested_recipe(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(assets.asset_dir("configs"))
    (tmp_path / "recipes" / "more").mkdir(parents=True)
    (tmp_path / "recipes" / "more" / "deep.yaml").write_text(
        "# A recipe in a folder.\n"
        "defaults:\n  - override /optim: adamw_8bit\n  - override /deepspeed: zero2\n"
        "tune_mm_mlp: true\ntrain: {epochs: null, max_steps: 7}\n"
    )
    for module in (compose, options):
        monkeypatch.setattr(module, "asset_dir", lambda name: tmp_path / name)


def test_a_nested_recipe_may_choose_groups(assets_with_nested_recipe):
    config = compose.compose(["+recipe=more/deep", "deepspeed=none"]).config
    assert (config.optim.name, config.deepspeed.stage, config.train.max_steps) == ("adamw_8bit", 0, 7)


def test_given_epochs_replace_the_steps_of_a_recipe(assets_with_nested_recipe):
    train = compose.compose(["+recipe=more/deep", "train.epochs=2"]).config.train
    assert (train.epochs, train.max_steps) == (2, None)


@pytest.mark.parametrize("verb", VERBS)
def test_a_recipe_may_hold_settings_of_every_verb(assets_with_nested_recipe, verb, tmp_path):
    """Each verb reads its own section of the recipe and ignores those of the others."""
    recipe = tmp_path / "recipes" / "more" / "deep.yaml"
    recipe.write_text(recipe.read_text() + "output: json\ninspect: {samples: 7}\nplan: {devices: 8}\n")
    needed = [f"{verb}.to=out"] if verb in ("sample", "filter") else []
    needed += ["data.train=a.jsonl"] if verb == "filter" else []
    needed += ["+task=grounding", "source=a", "to=b.jsonl"] if verb == "convert" else []
    config = compose.compose(["+recipe=more/deep", *needed], load_verb(verb)).config
    assert config.deepspeed.stage == 2
    match verb:
        case "inspect":
            assert (config.output, config.inspect.samples) == ("json", 7)
        case "plan":
            assert (config.output, config.plan.devices) == ("json", 8)
