"""The composition of a configuration from the command line, a recipe and the groups. The result is checked, and
contains no Hydra object."""

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qwenvl_train.config.arguments import read_arguments
from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.flat import flat
from qwenvl_train.config.inference import InferenceConfig, settings_of_run
from qwenvl_train.config.keys import Keys, keys_of
from qwenvl_train.config.layers import Layer, Layers, is_own_file, option_layer, read_group_file
from qwenvl_train.config.options import Names, verbs_with
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.config.validate import validate, value_problems
from qwenvl_train.config.verb import TRAIN, Verb
from qwenvl_train.errors import UserError

BASES = {
    "model": "custom", "data": "files", "deepspeed": "none", "optim": "adamw", "logging": "default", "filter": "report"
}  # fmt: skip
"""The option of each group that a user's own file for the group builds on, if it names no other. There is none for the
group `task`, whose files hold settings of several groups."""

SAMPLE_MODEL = "tiny_tasks"
"""The model of the sample sets of tasks."""
SHIPPED = Names()
C = TypeVar("C", bound=RunConfig, covariant=True)


@dataclass(frozen=True)
class Composed(Generic[C]):
    """The configuration of a verb, with the recipe and the keys that the user wrote."""

    config: C
    recipe: str | None
    given: frozenset[str]
    """The dotted keys that the user has set, on the command line or in files."""
    changes: Callable[[], Mapping[str, tuple[object, object]]] = dict
    """Returns the values of the recipe and those of this configuration, by the dotted keys that the command line has
    changed."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """The option of each group that the user has named, or whose keys the user has set."""


def compose(overrides: list[str], verb: Verb = TRAIN, names: Names = SHIPPED) -> Composed:
    """Compose and check the configuration of a verb. The command line takes precedence over the recipe, the recipe over
    the groups, and the groups over configs/<verb>.yaml. `names` are the recipes and options that can be named."""
    keys = keys_of(verb.config)
    arguments = read_arguments(overrides, keys, names)
    recipe = arguments.choices.pop("recipe", None)
    read = Layers(keys, names)
    if recipe:
        read.add_recipe(recipe)
    if isinstance(run := arguments.values.get("run"), str) and issubclass(verb.config, InferenceConfig):
        read.add_run(settings_of_run(run).absolute())
    others = {group: option for group, option in arguments.choices.items() if not _has_group(verb, group)}
    problems = [
        f"{group}={option}: {group} is a verb of its own: qwenvl-train {group} +{group}={option} …"
        for group, option in others.items()
    ]
    problems += verb.without_effect([*arguments.choices, *(key for key in arguments.values if key in keys.fields)])
    set_by_user = arguments.values.keys() | {key for layer in read.layers if layer.file for key in layer.values}
    chosen = read.own_choices | arguments.choices
    if "task" in chosen and any(layer.is_run for layer in read.layers):
        problems.append(
            "task has no effect on a run, whose own settings are used; set eval.metrics and others yourself"
        )
    if "model" in arguments.choices and arguments.values.get("run"):
        problems.append("run and model both name a model; set one of the two")
    choices = read.choices | _implied_groups(set_by_user, verb, chosen, names) | chosen
    choices = {group: option for group, option in choices.items() if _has_group(verb, group)}
    layers = [layer.below(chosen) for layer in read.layers]
    tree, given, files = _tree(choices, [*layers, Layer(arguments.values)], verb, keys, names)
    tree = _without_other_verbs(tree, arguments.values, verb)
    given |= arguments.values.keys()
    if problems := arguments.problems + problems:
        raise UserError("\n".join(problems + value_problems(tree, verb, files)))
    config = validate(tree, frozenset(given), verb, files)
    changes = partial(_changes, read, choices, arguments.choices, tree, verb, keys, names) if recipe else dict
    return Composed(config, _label(recipe), frozenset(given), changes, choices)


def _has_group(verb: Verb, group: str) -> bool:
    """Return whether a verb has a group. A group with the name of a verb is for this verb alone."""
    return group == verb.name or not (asset_dir("configs") / f"{group}.yaml").is_file()


def _changes(
    read: Layers, choices: dict[str, str], chosen: Collection[str], tree: dict, verb: Verb, keys: Keys, names: Names
) -> dict[str, tuple[object, object]]:
    """Return the values of the recipe and of the tree, where the command line has changed them. The name of the run is
    left out.

    The embedded example comes with values for itself, such as a short training. That another model or other data do not
    have these is no change of the user's.

    Args:
        choices: The options of groups in the tree.
        chosen: The groups whose options the command line names. Only their own settings count as changed.
    """
    in_recipe = {key for layer in read.layers if layer.file for key in layer.values}
    own = read.choices | _implied_groups(in_recipe, verb, read.own_choices, names) | read.own_choices
    try:
        alone, with_same_groups = (
            flat(_without_other_verbs(_tree(groups, read.layers, verb, keys, names)[0], (), verb))
            for groups in (own, choices)
        )
    except UserError:  # the recipe refers to values that only the command line has
        return {}
    after = flat(tree)
    changed: dict[str, tuple[object, object]] = {}
    for key in dict.fromkeys([*alone, *with_same_groups, *after]):
        of_chosen = key.partition(".")[0] in chosen
        before = alone.get(key) if of_chosen or key not in with_same_groups else with_same_groups[key]
        if key != "run_name" and before != after.get(key) and (key in after or of_chosen):
            changed[key] = before, after.get(key)
    return changed


def _implied_groups(keys: Set[str], verb: Verb, chosen: Mapping[str, str], names: Names) -> dict[str, str]:
    """Return the options that are implied by the keys and the options that the user has set.

    With data.train, the group data becomes files, so that the user's own files are not evaluated on the embedded
    shapes. With model.path, the group model becomes custom, since the user's own checkpoint is not a tiny one. A verb
    for trained models needs only data.eval, and does not use the embedded shapes for the user's own model. A task comes
    with the sample set of its name, which comes with a model that can learn it; without one, a task does not use the
    embedded shapes.
    """
    implied = [("data.train", "data=files"), ("model.path", "model=custom")]
    if issubclass(verb.config, InferenceConfig):
        implied += [("data.eval", "data=files"), ("model.path", "data=files")]
    found = dict(choice.split("=") for key, choice in implied if key in keys)
    if (task := chosen.get("task")) is not None and verb.reads:
        samples = _sample_set(task, names)
        found.setdefault("data", names.resolved("data", samples))
        if chosen.get("data", found["data"]) == samples != "files":
            found.setdefault("model", SAMPLE_MODEL)
    return found


def _sample_set(task: str, names: Names) -> str:
    """Return the option of the group data that belongs to a task."""
    name = Path(task).stem if is_own_file(task) else task
    return name if name in names.groups["data"] else "files"


def _with_replaced_length(values: dict[str, object]) -> dict[str, object]:
    """Return the values of a layer, and null for the length that they replace: train.max_steps replaces the
    train.epochs of earlier layers, and train.epochs replaces train.max_steps."""
    replaced: dict[str, object] = {}
    if values.get("train.max_steps") is not None:
        replaced["train.epochs"] = None
    if values.get("train.epochs") is not None:
        replaced["train.max_steps"] = None
    return replaced | values


def _tree(
    choices: dict[str, str], layers: list[Layer], verb: Verb, keys: Keys, names: Names
) -> tuple[dict, set[str], dict[str, Path]]:
    """Return the configuration as plain values with resolved interpolations. It leaves out keys without a value.

    Also return the keys to which the user's own files give another value, and the file of each value that comes from
    one.
    """
    OmegaConf.register_new_resolver("asset", _asset, replace=True)
    named: dict[str, str | None] = dict(choices)
    in_files: list[Layer] = []
    for group, option in choices.items():
        if is_own_file(option):
            base, of_group = read_group_file(group, option, keys, names)
            named[group] = base or BASES.get(group)
            in_files += of_group
    with initialize_config_dir(str(asset_dir("configs")), version_base="1.3"):
        config = hydra_compose(verb.name, [f"{group}={option}" for group, option in named.items() if option])
    given: set[str] = set()
    files: dict[str, Path] = {}
    try:
        for layer in [*_of_samples(choices, keys), *in_files, *layers]:
            for key, value in _with_replaced_length(layer.values).items():
                if layer.file and not layer.is_run and value != _current(config, key):
                    given.add(key)
                files.pop(key, None)
                if layer.file:
                    files[key] = layer.file
                # A list and a mapping replace each other, since they cannot be merged.
                merged = isinstance(value, dict) and isinstance(_node(config, key), DictConfig)
                OmegaConf.update(config, key, value, merge=merged, force_add=True)
        tree = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        where, reason = error.full_key or "a value", str(error).partition("\n")[0]
        raise UserError(f"{where}: {reason}") from None
    return _without_missing(tree), given, files


def _of_samples(choices: Mapping[str, str], keys: Keys) -> list[Layer]:
    """Return the settings of the sample set, if there is a task. They fit its few small rows, so that they take
    precedence over those of the task, which fit rows of users."""
    option = choices.get("data")
    if option is None or choices.get("task") is None or is_own_file(option):
        return []
    return [option_layer("data", option, keys)]


def _current(config: DictConfig, key: str) -> object:
    value = _node(config, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _node(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key, throw_on_missing=False, throw_on_resolution_failure=False)


def _label(recipe: str | None) -> str | None:
    """Return the name of a recipe, after which a run without a name is called. For the configuration of a run, it is
    the name of that run."""
    if recipe is None or not is_own_file(recipe):
        return recipe
    path = Path(recipe).expanduser().absolute()
    return path.parent.name if path.name == "config.yaml" else path.stem


def _without_other_verbs(tree: dict, on_command_line: Iterable[str], verb: Verb) -> dict:
    """Return the tree without the settings of other verbs that a recipe holds. Those on the command line are kept, and
    the validation reports them."""
    own = verb.config.model_fields.keys() | {key.partition(".")[0] for key in on_command_line}
    return {key: value for key, value in tree.items() if key in own or not verbs_with(key)}


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
