"""The classes that rows are assigned to, read from a YAML file, and which rows stay where a class has a limit."""

import hashlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.curation.judging.settings import Class, ClassSettings
from qwenvl_train.errors import UserError

Tree = dict[str, dict[str, ClassSettings]]
"""The classes of each domain."""
MOST_OPTIONS = 62
"""The number of domains, and of classes in a domain: each has a letter or a digit."""
_FORM = TypeAdapter(dict[str, dict[str, Class]])


@dataclass(frozen=True)
class ClassOfRow:
    domain: str
    name: str
    probability: float
    """The probability of the domain, times that of the class in the domain."""


def read_tree(path: str | None, key: str) -> Tree:
    """Return the classes in a YAML file, or those of the example.

    Args:
        key: The setting with the path, for error messages.
    """
    file = asset_dir("data") / "classes" / "example.yaml" if path is None else Path(path).expanduser()
    where = f"{key}: {file}"
    try:
        tree = _FORM.validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{where} is not YAML: {' '.join(str(error).split())}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{where}: {place}: {first['msg']}; the file needs domains, their classes, and a description of each class."
        ) from None
    counts = {"domains": len(tree)} | {f"classes in {domain}": len(classes) for domain, classes in tree.items()}
    for what, count in counts.items():
        if not 1 <= count <= MOST_OPTIONS:
            raise UserError(f"{where}: there are {count} {what}, but 1 to {MOST_OPTIONS} are possible.")
    return tree


def by_name(tree: Tree) -> dict[str, ClassSettings]:
    """Return the settings of all classes, by domain/class."""
    return {f"{domain}/{name}": one for domain, classes in tree.items() for name, one in classes.items()}


def over_limit(keys: Iterable[Hashable], scores: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Return the places of those rows of a class that are over its limit, in order.

    The rows with the best scores stay. Rows with the same score, or without one, are chosen by the seed and their key
    alone, so that the order of the rows does not matter.

    Args:
        keys: What stays the same of each row from run to run, such as its source and line.
        scores: [rows]: a score of each row, such as the mean of its scores. NaN for a row without one.
    """
    drawn = np.fromiter((_drawn(key, seed) for key in keys), np.uint64, len(scores))
    order = np.lexsort((drawn, -scores, np.isnan(scores)))
    return np.sort(order[limit:])


def _drawn(key: Hashable, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(repr((seed, key)).encode()).digest()[:8])
