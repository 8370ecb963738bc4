"""What a user can choose from: recipes, groups and their options, read from the folders; needs no Hydra."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from qwenvl_train.config.assets import asset_dir

Verb = Literal["train", "inspect", "plan"]


def recipe_files() -> dict[str, Path]:
    """Every recipe by the name that +recipe= takes, folders below recipes/ included."""
    folder = asset_dir("recipes")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def recipe_summary(path: Path) -> str:
    """The first line of a recipe says in words what it does."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def groups() -> dict[str, list[str]]:
    """Every group below configs/ with its options."""
    folders = sorted(path for path in asset_dir("configs").iterdir() if path.is_dir())
    return {folder.name: sorted(option.stem for option in folder.glob("*.yaml")) for folder in folders}


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that was probably meant; case, dots and dashes do not count."""
    by_plain = {_plain(candidate): candidate for candidate in known}
    matches = get_close_matches(_plain(name), by_plain, n=1, cutoff=cutoff)
    return by_plain[matches[0]] if matches else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
