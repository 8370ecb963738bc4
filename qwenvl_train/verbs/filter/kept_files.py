"""The files of kept rows. There is one for each entry of data.train and each format that its files have, and for each
class if classes have weights, so that a mixture can draw from them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.curation.judging.classes import Tree, by_name
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.verbs.filter.outcome import Outcome


class Kind(NamedTuple):
    """What the rows of one file have in common."""

    entry: int
    """Number of their entry of data.train."""
    format: str
    of_class: int
    """Number of their class, if classes have weights, and -1 without a class."""


@dataclass(frozen=True)
class KeptFile:
    name: str
    kind: Kind
    weight: float | None


class KeptFiles:
    """The files of kept rows, and which row goes to which of them."""

    def __init__(self, samples: Samples, outcome: Outcome, tree: Tree):
        self._samples, self._outcome = samples, outcome
        self._weights = weights_of_classes(outcome, tree)
        counts = Counter(self._kind(int(row)) for row in np.flatnonzero(outcome.kept))
        self.files = {kind: self._file(number, kind, counts) for number, kind in enumerate(sorted(counts), start=1)}

    def of(self, row: int) -> KeptFile:
        return self.files[self._kind(row)]

    def _kind(self, row: int) -> Kind:
        of_class = self._outcome.class_of if self._weights else None
        number = -1 if of_class is None else int(of_class[row])
        return Kind(self._samples.entry_of(row), self._samples.format_of(row), number)

    def _file(self, number: int, kind: Kind, counts: Counter[Kind]) -> KeptFile:
        config = self._samples.entries[kind.entry].config
        name = "kept.jsonl"
        if len(counts) > 1:
            # The number makes the name the only one, whatever remains of the words.
            named = f"{Path(config.path).stem} {self._class_name(kind)}"
            name = "-".join(["kept", str(number), *re.findall(r"[\w.]+", named)])[:100] + ".jsonl"
        if not self._weights:
            return KeptFile(name, kind, config.weight)
        # A file's part of the weight of a class is that of its rows, times the weight of its entry.
        parts = {
            other: rows * (self._samples.entries[other.entry].config.weight or 1.0)
            for other, rows in counts.items()
            if other.of_class == kind.of_class
        }
        return KeptFile(name, kind, self._weights[kind.of_class] * parts[kind] / sum(parts.values()))

    def _class_name(self, kind: Kind) -> str:
        if not self._weights:
            return ""
        return self._outcome.classes[kind.of_class] if kind.of_class >= 0 else "no class"


def refuse_repeats(entries: Sequence[SourceConfig], tree: Tree) -> None:
    """Raise UserError if classes have weights and an entry has repeats, since no mixture can have both."""
    weighted = any(one.weight is not None for classes in tree.values() for one in classes.values())
    repeated = next((entry.path for entry in entries if entry.repeats is not None), None)
    if weighted and repeated is not None:
        raise UserError(
            f"data.train: {repeated} has repeats, and classes of filter.classes.tree have weights; give the entry a "
            "weight instead."
        )


def weights_of_classes(outcome: Outcome, tree: Tree) -> dict[int, float]:
    """Return the weight of each class in a mixture, by its number, and that of rows without a class by -1. It is empty
    if classes have no weights. Rows without a class keep their share of all rows."""
    settings = by_name(tree)
    weights = {number: settings[name].weight for number, name in enumerate(outcome.classes)}
    if outcome.class_of is None or all(weight is None for weight in weights.values()):
        return {}
    counts = Counter(outcome.class_of[outcome.kept].tolist())
    found = {number: 1.0 if weight is None else weight for number, weight in weights.items()}
    present = sum(found[number] for number in counts if number >= 0) or 1.0
    classed = sum(count for number, count in counts.items() if number >= 0) or 1
    return found | {-1: present * counts[-1] / classed}
