"""Nested values by one key each."""

from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Return {"train": {"lr": …}} as {"train.lr": …}. An empty mapping is left out."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= {f"{key}{separator}{name}": inner for name, inner in flat(value, separator).items()}
        else:
            found[key] = value
    return found
