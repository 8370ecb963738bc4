"""A rule that involves several settings. It is a function that yields one line for each problem it finds."""

from collections.abc import Callable, Iterator
from typing import Any

Lines = Iterator[str]
Rule = Callable[[Any, frozenset[str]], Lines]
"""Takes the configuration, and the dotted keys that the user wrote. Each of these must have an effect."""


def among(given: frozenset[str], *keys: str) -> list[str]:
    return [key for key in keys if key in given]
