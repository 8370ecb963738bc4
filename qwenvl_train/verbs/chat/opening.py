"""The files that a question names, before they are opened."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from qwenvl_train.data.formats import Reference
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.verbs.chat.settings import ChatConfig


def locator_of(config: ChatConfig) -> Locator:
    """Return the Locator of typed paths, which start at the working directory."""
    return Locator(Path.cwd(), fenced=False, allow_remote=config.data.allow_remote, cache=config.cache_folder)


def references(kind: Literal["image", "video"], paths: Iterable[str]) -> list[Reference]:
    return [(kind, path) for path in paths]
