"""The composition of a configuration from the command line, a recipe and the groups. The result is checked, and
contains no Hydra object."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qwenvl_train.config.arguments import read_arguments
from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.keys import keys_of
from qwenvl_train.config.options import recipe_files, verbs_with
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.config.validate import validate, value_problems
from qwenvl_train.config.verb import TRAIN, Verb
from qwenvl_train.errors import UserError

C = TypeVar("C", bound=RunConfig, covariant=True)


@dataclass(frozen=True)
class Composed(Generic[C]):
    """The configuration of a verb, with the recipe and the keys that the user wrote."""

    config: C
    recipe: str | None
    given: frozenset[str]
    """The dotted keys of the values on the command line."""


def compose(overrides: list[str], verb: Verb = TRAIN) -> Composed:
    """Compose and check the configuration of a verb. The command line takes precedence over the recipe, the recipe over
    the groups, and the groups over configs/<verb>.yaml."""
    arguments = read_arguments(overrides, keys_of(verb.config))
    given = frozenset(arguments.values)
    choices = _implied_groups(given) | arguments.choices
    tree = _tree(choices, _replaced_length(arguments.values) | arguments.values, verb)
    tree = _without_other_verbs(tree, given, verb)
    if arguments.problems:
        raise UserError("\n".join(arguments.problems + value_problems(tree, verb)))
    return Composed(validate(tree, given, verb), choices.get("recipe"), given)


def _implied_groups(given: frozenset[str]) -> dict[str, str]:
    """Return the options that keys on the command line imply. With data.train, the group data becomes files, so that
    the user's own files are not evaluated on the embedded shapes. With model.path, the group model becomes custom,
    since the user's own checkpoint is not a tiny one."""
    implied = {"data.train": "data=files", "model.path": "model=custom"}
    return dict(choice.split("=") for key, choice in implied.items() if key in given)


def _replaced_length(values: dict[str, object]) -> dict[str, object]:
    """Return null for the length that is replaced: train.max_steps on the command line replaces the train.epochs of the
    recipe, and train.epochs replaces train.max_steps."""
    steps, epochs = values.get("train.max_steps"), values.get("train.epochs")
    replaced: dict[str, object] = {}
    if steps is not None:
        replaced["train.epochs"] = None
    if epochs is not None:
        replaced["train.max_steps"] = None
    return replaced


def _tree(choices: dict[str, str], values: dict[str, object], verb: Verb) -> dict:
    """Return the configuration as plain values with resolved interpolations. It leaves out keys without a value."""
    OmegaConf.register_new_resolver("asset", _asset, replace=True)
    _register_recipes()
    with initialize_config_dir(str(asset_dir("configs")), version_base="1.3"):
        config = hydra_compose(verb.name, [_choice(group, option) for group, option in choices.items()])
    try:
        for key, value in values.items():
            OmegaConf.update(config, key, value, force_add=True)
        tree = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        where, reason = error.full_key or "a value", str(error).partition("\n")[0]
        raise UserError(f"{where}: {reason}") from None
    return _without_missing(tree)


def _without_other_verbs(tree: dict, given: frozenset[str], verb: Verb) -> dict:
    """Return the tree without the settings of other verbs that a recipe holds. Those on the command line are kept, and
    the validation reports them."""
    own = verb.config.model_fields.keys() | {key.partition(".")[0] for key in given}
    return {key: value for key, value in tree.items() if key in own or not verbs_with(key)}


def _choice(group: str, option: str) -> str:
    return f"+recipe={option}" if group == "recipe" else f"{group}={option}"


def _register_recipes() -> None:
    """Register the recipes with Hydra, which does not find them itself, since recipes/ lies beside configs/. A recipe
    may set any key."""
    store = ConfigStore.instance()
    for name, path in recipe_files().items():
        folder, _, stem = f"recipe/{name}".rpartition("/")
        store.store(group=folder, name=stem, package="_global_", node=OmegaConf.load(path))


def _asset(path: str) -> str:
    """Resolve ${asset:data/shapes/train.jsonl} to the path of that file, wherever the package is installed."""
    folder, _, rest = path.partition("/")
    return str(asset_dir(folder) / rest)


def _without_missing(tree: object) -> dict:
    """Return the tree without the keys whose value is ???, Hydra's mark for a key without a default. The validation
    reports the missing keys."""
    assert isinstance(tree, dict)
    return {
        key: _without_missing(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value != "???"
    }
