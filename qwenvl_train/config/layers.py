"""Recipes and a user's own YAML files, as layers of values above the options of the groups.

A layer is read from one file. The file's `defaults` name the recipes that it builds on, which become earlier layers,
and the options of groups that it chooses.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.keys import Keys
from qwenvl_train.config.options import YAML, Names, nearest, recipe_files
from qwenvl_train.config.paths import anchored
from qwenvl_train.errors import UserError


@dataclass(frozen=True)
class Layer:
    values: dict[str, object]
    """Maps each dotted key to its value."""
    file: Path | None = None
    """The user's own file that sets these values. None for a recipe of the package."""
    is_run: bool = False
    """Whether the file is the config.yaml of a run folder, which sets every key."""

    def below(self, chosen: Container[str]) -> "Layer":
        """Return the layer with room for the options that the user has named for groups. A run sets every key, so that
        they would have no effect: it gives up the sections of these groups."""
        if not self.is_run:
            return self
        return replace(self, values={key: one for key, one in self.values.items() if key.split(".")[0] not in chosen})


def is_own_file(option: str) -> bool:
    """Return whether an option is the path of a file, and not a name."""
    return option.endswith(YAML)


class Layers:
    """The layers of a recipe, and the options of groups that it chooses."""

    def __init__(self, keys: Keys, names: Names):
        self._keys, self._names = keys, names
        self.layers: list[Layer] = []
        """Later layers override earlier ones."""
        self.choices: dict[str, str] = {}
        """The options of groups that recipes of the package choose."""
        self.own_choices: dict[str, str] = {}
        """The options of groups that the user's own files choose."""
        self._read_files: set[Path] = set()

    def add_recipe(self, option: str) -> None:
        """Read a recipe, which is given by name or as a file."""
        if is_own_file(option):
            self._read(_existing(Path.cwd(), option, f"recipe={option}"), own=True)
        else:
            self._read(recipe_files()[option], own=False)

    def add_run(self, file: Path) -> None:
        """Read the settings of a run whose model is used. Those that bound the work of its evaluations do not apply,
        and the permission to run code must be given again."""
        self._read(file, own=True)
        for key in ("eval.samples", "eval.batch_size", "eval.allow_code"):
            self.layers[-1].values.pop(key, None)

    def _read(self, path: Path, own: bool, above: tuple[Path, ...] = ()) -> None:
        if path in above:
            raise _circle([*above, path])
        if path in self._read_files:
            return  # two recipes build on it, and reading it again would override the first of them
        self._read_files.add(path)
        tree = _load(path)
        defaults = tree.pop("defaults", None) or []
        if not isinstance(defaults, list):
            raise UserError(f"{path}: defaults must be a list, such as [sft_lora].")
        is_run = own and path.name == "config.yaml" and (path.parent / "environment.json").is_file()
        if is_run:
            # The new run gets a folder of its own, and starts from the beginning.
            tree.pop("run_name", None)
            if isinstance(train := tree.get("train"), dict):
                train.pop("resume", None)
        file = path if own else None
        # A run folder has absolute paths, or, from older versions, paths that start at the working directory.
        layer = Layer(_values(tree, None if is_run else file, self._keys), file, is_run)
        for entry in [*defaults, *([] if "_self_" in defaults else ["_self_"])]:
            match entry:
                case "_self_":
                    self.layers.append(layer)
                case str():
                    self._read_base(entry, path, own, (*above, path))
                case dict() if len(entry) == 1:
                    ((group, option),) = entry.items()
                    self._choose(str(group), str(option), path, own)
                case _:
                    raise self._unreadable_default(path, entry)

    def _read_base(self, entry: str, path: Path, own: bool, above: tuple[Path, ...]) -> None:
        """Read the recipe that a file builds on. Only a user's own file builds on other files and their names."""
        if own and entry in self._names.own.get("recipe", {}):
            entry = self._names.resolved("recipe", entry)
        if own and is_own_file(entry):
            self._read(_existing(path.parent, entry, f"{path}: defaults"), own, above)
        elif entry in recipe_files():
            self._read(recipe_files()[entry], False, above)
        else:
            raise UserError(f"{path}: defaults: there is no recipe {entry}{_meant(entry, self._names.recipes)}")

    def _choose(self, group: str, option: str, path: Path, own: bool) -> None:
        """Choose an option of a group, written `override /data: shapes` as in Hydra, or `data: shapes`."""
        name = group.removeprefix("override").strip().removeprefix("/")
        options = self._names.groups
        if name not in options:
            raise self._unreadable_default(path, {group: option})
        if own:
            option = self._names.resolved(name, option)
        if own and is_own_file(option):
            option = str(_existing(path.parent, option, f"{path}: defaults"))
        elif option not in options[name]:
            raise UserError(f"{path}: defaults: there is no {name} {option}{_meant(option, options[name])}")
        (self.own_choices if own else self.choices)[name] = option

    def _unreadable_default(self, path: Path, entry: object) -> UserError:
        return UserError(
            f"{path}: defaults: {entry} is neither a recipe nor an option of {', '.join(self._names.groups)}; "
            "write the name or the file of a recipe, or data: files."
        )


def read_group_file(group: str, option: str, keys: Keys, names: Names) -> tuple[str | None, list[Layer]]:
    """Read a user's own file for a group, such as model=./mine.yaml, and the files that it builds on. Return the option
    that the first of these builds on, or None if it names none, and a layer for each file."""
    path = _existing(Path.cwd(), option, f"{group}={option}")
    read: list[Path] = []
    layers: list[Layer] = []
    while True:
        if path in read:
            raise _circle([*read, path])
        read.append(path)
        tree = _load(path)
        base = _base_of(group, tree.pop("defaults", None), path, names)
        layers.insert(0, Layer(_values(_settings_of(group, tree, path), path, keys), path))
        if base is None or not is_own_file(base):
            return base, layers
        path = _existing(path.parent, base, f"{path}: defaults")


def option_layer(group: str, option: str, keys: Keys) -> Layer:
    """Return the settings of an option of the package that also sets those of other groups. Of any other option, there
    are none."""
    tree = _load(asset_dir("configs") / group / f"{option}.yaml")
    tree.pop("defaults", None)
    return Layer(_values(tree, None, keys) if group in tree else {})


def _settings_of(group: str, tree: dict[str, object], path: Path) -> dict[str, object]:
    """Return the settings in a file for a group. Those of a task belong to several sections."""
    if group == "task":
        return tree
    inner = tree[group] if tree.keys() == {group} else tree
    if not isinstance(inner, dict):
        raise UserError(f"{path}: {group} must be a mapping of settings.")
    return {group: inner}


def _base_of(group: str, defaults: object, path: Path, names: Names) -> str | None:
    """Return the option that the defaults of a file for a group name, or None without defaults."""
    if defaults is None:
        return None
    options = names.groups[group]
    match defaults:
        case [str(base)] if base in options or is_own_file(base):
            return names.resolved(group, base)
        case [str(base)]:
            raise UserError(f"{path}: defaults: there is no {group} {base}{_meant(base, options)}")
    raise UserError(
        f"{path}: defaults must be a list with the one {group} that the file builds on, such as [{options[0]}]."
    )


def _circle(files: list[Path]) -> UserError:
    chain = " → ".join(map(str, files[files.index(files[-1]) :]))
    return UserError(f"{files[-1]}: its defaults lead back to itself: {chain}.")


def _meant(name: str, known: Iterable[str]) -> str:
    meant = nearest(name, known)
    return f", did you mean {meant}?" if meant else f"; there are: {', '.join(known)}."


def _values(tree: Mapping[str, object], path: Path | None, keys: Keys) -> dict[str, object]:
    """Return the values of a file by dotted key. Paths that it gives relative to itself become absolute."""
    values = dict(_set_leaves(tree, keys))
    return values if path is None else anchored(values, path.parent)


def _set_leaves(tree: Mapping[str, object], keys: Keys) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        for key, inner in keys.leaves(str(name), value):
            # A section of which every line is a comment sets nothing.
            if inner not in (None, {}) or keys.section(key) is None:
                yield key, inner


def _existing(folder: Path, option: str, what: str) -> Path:
    path = (folder / Path(option).expanduser()).resolve()
    if path.is_file():
        return path
    raise UserError(f"{what}: there is no file {path}.")


def _load(path: Path) -> dict[str, object]:
    """Return the content of a YAML file as plain values. Interpolations are kept as they are written."""
    try:
        loaded = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as YAML: {reason}") from None
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path}: must hold settings, as key: value.")
    tree = OmegaConf.to_container(loaded, resolve=False)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}
