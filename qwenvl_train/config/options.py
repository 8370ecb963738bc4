"""The recipes, groups and options that a user can choose from. They are read from the folders, without Hydra."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from qwenvl_train.config.assets import asset_dir


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


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that was probably meant, or None. Case does not matter, and dots and dashes count as
    underscores."""
    by_plain = {_plain(candidate): candidate for candidate in known}
    matches = get_close_matches(_plain(name), by_plain, n=1, cutoff=cutoff)
    return by_plain[matches[0]] if matches else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
