"""The files of kept rows. There is one for each entry of data.train, or for each class of an entry if classes have
weights, so that a mixture can draw from them by their weights."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwenvl_train.config.entries import entry_names
from qwenvl_train.curation.judging.classes import Tree
from qwenvl_train.data.samples import Samples
from qwenvl_train.verbs.filter.outcome import Outcome


@dataclass(frozen=True)
class KeptFile:
    """A file of kept rows: those of an entry of data.train, or of one class of an entry if classes have weights."""

    name: str
    entry: int
    weight: float | None


class KeptFiles:
    """The files of kept rows, and which row goes to which of them."""

    def __init__(self, samples: Samples, outcome: Outcome, tree: Tree):
        self._samples, self._outcome = samples, outcome
        configs = [entry.config for entry in samples.entries]
        self._names = entry_names(configs) if len(configs) > 1 else [""]
        self._weights = weights_of_classes(outcome, tree)
        counts = Counter(self._key(row) for row in np.flatnonzero(outcome.kept).tolist())
        self.files = {key: self._file(key, counts) for key in sorted(counts)}
        """By the number of the entry and that of the class."""

    def of(self, row: int) -> KeptFile:
        return self.files[self._key(row)]

    def _key(self, row: int) -> tuple[int, int]:
        of_class = self._outcome.class_of if self._weights else None
        return self._samples.entry_of(row), -1 if of_class is None else int(of_class[row])

    def _file(self, key: tuple[int, int], counts: Counter) -> KeptFile:
        entry, of_class = key
        named = f"{entry + 1} {Path(self._names[entry]).stem}" if len(self._names) > 1 else ""
        weight = self._samples.entries[entry].config.weight
        if self._weights:
            named += f" {self._outcome.classes[of_class] if of_class >= 0 else 'no class'}"
            in_class = {one: rows for (one, other), rows in counts.items() if other == of_class}
            # An entry's part of the weight of a class is that of its rows, times its own weight.
            parts = {one: rows * (self._samples.entries[one].config.weight or 1.0) for one, rows in in_class.items()}
            weight = self._weights[of_class] * parts[entry] / sum(parts.values())
        file = "-".join(["kept", *re.findall(r"[\w.]+", named)])
        return KeptFile(f"{file}.jsonl", entry, weight)


def weights_of_classes(outcome: Outcome, tree: Tree) -> dict[int, float]:
    """Return the weight of each class in a mixture, by its number, and that of rows without a class by -1. It is empty
    if classes have no weights. Rows without a class keep their share of all rows."""
    settings = {f"{domain}/{name}": one for domain, classes in tree.items() for name, one in classes.items()}
    weights = {number: settings[name].weight for number, name in enumerate(outcome.classes)}
    if outcome.class_of is None or all(weight is None for weight in weights.values()):
        return {}
    counts = Counter(outcome.class_of[outcome.kept].tolist())
    found = {number: 1.0 if weight is None else weight for number, weight in weights.items()}
    present = sum(found[number] for number in counts if number >= 0) or 1.0
    classed = sum(count for number, count in counts.items() if number >= 0) or 1
    return found | {-1: present * counts[-1] / classed}
