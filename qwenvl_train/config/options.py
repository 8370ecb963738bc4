"""The recipes, groups and options that a user can choose from. They are read from the folders, without Hydra.

They are those of the package, and those in the folder of --config-dir, whose names stand for their paths.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.errors import UserError

YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Names:
    """The names of recipes and of options of groups."""

    folder: Path | None = None
    """The folder of --config-dir."""
    own: dict[str, dict[str, Path]] = field(default_factory=dict)
    """For each group, and for the group `recipe`, the files in that folder by their names."""

    @classmethod
    def within(cls, folder: Path | None) -> "Names":
        """Return the names with those of a folder. Raise UserError if the folder has a name of the package, or none."""
        return cls() if folder is None else cls(folder, _own_files(folder))

    @property
    def recipes(self) -> list[str]:
        return [*recipe_files(), *self.own.get("recipe", {})]

    @property
    def groups(self) -> dict[str, list[str]]:
        return {group: [*names, *self.own.get(group, {})] for group, names in groups().items()}

    def resolved(self, group: str, option: str) -> str:
        """Return the path that a name of the folder stands for, and any other option unchanged."""
        return str(self.own.get(group, {}).get(option, option))


def _own_files(folder: Path) -> dict[str, dict[str, Path]]:
    if not folder.is_dir():
        raise UserError(f"--config-dir={folder}: there is no such folder.")
    shipped = {**groups(), "recipe": list(recipe_files())}
    found: dict[str, dict[str, Path]] = {}
    for group, name, path in _named_files(folder.resolve(), groups()):
        if name in shipped[group]:
            raise UserError(f"{path}: {group}={name} is the name of a shipped one; rename the file.")
        if name in found.setdefault(group, {}):
            raise UserError(f"{path}: {found[group][name]} has the name {name}, too; rename one of them.")
        found[group][name] = path
    if not found:
        raise UserError(
            f"--config-dir={folder}: the folder has no recipe (recipe/*.yaml or *.yaml) and no option of a group "
            f"({', '.join(f'{group}/*.yaml' for group in groups())})."
        )
    return found


def _named_files(folder: Path, known: Iterable[str]) -> Iterator[tuple[str, str, Path]]:
    """Yield the group, the name and the path of each file."""
    for group in known:
        for path in sorted((folder / group).glob("*")):
            if path.suffix in YAML:
                yield group, path.stem, path
    for path in (*sorted(folder.glob("*")), *sorted((folder / "recipe").rglob("*"))):
        if path.suffix in YAML and path.is_file():
            base = folder if path.parent == folder else folder / "recipe"
            yield "recipe", path.relative_to(base).with_suffix("").as_posix(), path


def recipe_files() -> dict[str, Path]:
    """Return the path of each recipe by the name that +recipe= takes, including recipes in folders below recipes/."""
    folder = asset_dir("recipes")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def recipe_summary(path: Path) -> str:
    """Return the first line of a recipe, which says what the recipe does."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def groups() -> dict[str, list[str]]:
    """Return each group below configs/ with its options."""
    folders = sorted(path for path in asset_dir("configs").iterdir() if path.is_dir())
    return {folder.name: sorted(option.stem for option in folder.glob("*.yaml")) for folder in folders}


def verbs_with(key: str) -> list[str]:
    """Return the verbs whose own settings, in configs/<verb>.yaml, have this key at the top level."""
    return [path.stem for path in sorted(asset_dir("configs").glob("*.yaml")) if key in _top_level_keys(path)]


def _top_level_keys(path: Path) -> set[str]:
    return {match[1] for match in re.finditer(r"^(\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)} - {
        "defaults"
    }


_OTHER_KINDS = ("omni", "audio", "asr", "tts", "image", "coder", "math", "embedding", "reranker", "guard")
"""What names of Qwen models that are of no supported kind have."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that was probably meant, or None. Case does not matter, and dots and dashes count as
    underscores."""
    by_plain = {_plain(candidate): candidate for candidate in known}
    matches = get_close_matches(_plain(name), by_plain, n=1, cutoff=cutoff)
    return by_plain[matches[0]] if matches else None


def other_kind(name: str, known: Iterable[str]) -> str | None:
    """Return the kind of model that a name tells, if it is one that cannot be trained and no known model is of it. A
    near name would mislead."""
    words = {word for candidate in known for word in _plain(candidate).split("_")}
    return next((word for word in _plain(name).split("_") if word in _OTHER_KINDS and word not in words), None)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
