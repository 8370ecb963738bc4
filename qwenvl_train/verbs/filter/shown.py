"""The rows that the report shows as examples of each rule."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.sample import Image
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.verbs.filter.folder import FilterFolder
from qwenvl_train.verbs.filter.outcome import Outcome
from qwenvl_train.verbs.filter.writing import verdicts_of


@dataclass(frozen=True)
class ShownRow:
    """A row that falls to a rule."""

    rule: str
    row: dict[str, Any]
    """The row as a card of a page has it: id, source, line, images and prompt."""
    answers: tuple[str, ...]
    verdicts: dict[str, Verdict]
    """The verdicts of all rules that it falls to."""


def shown_rows(samples: Samples, outcome: Outcome, folder: FilterFolder, each: int) -> list[ShownRow]:
    """Return up to `each` rows for each rule, spread evenly over those that fall to it."""
    wanted: dict[int, list[str]] = {}
    for number, rule in enumerate(outcome.rules):
        rows = np.flatnonzero(outcome.falls[:, number])
        for place in np.linspace(0, len(rows) - 1, min(each, len(rows))).round().astype(int).tolist():
            wanted.setdefault(int(rows[place]), []).append(rule)
    found = list(_shown(samples, outcome, folder, wanted))
    return sorted(found, key=lambda one: outcome.rules.index(one.rule))


def _shown(
    samples: Samples, outcome: Outcome, folder: FilterFolder, wanted: dict[int, list[str]]
) -> Iterator[ShownRow]:
    first = 0
    for table in folder.tables(outcome.by_model):
        for row in sorted(row for row in wanted if first <= row < first + len(table)):
            verdicts = verdicts_of(row, table, row - first, outcome)
            about, answers = _described(samples, row)
            for rule in wanted[row]:
                yield ShownRow(rule, about, answers, verdicts)
        first += len(table)


def _described(samples: Samples, row: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    source, line = samples.origin(row)
    about: dict[str, Any] = {"id": samples.id(row), "source": source, "line": line, "images": [], "prompt": ""}
    try:
        view = RowView(samples[row])
    except UserError:
        return about, (str(samples.raw(row))[:2000],)
    pictures = [part.content for part in view.sample.media if isinstance(part, Image)]
    images = [content if isinstance(content, str) else None for content in pictures]
    return about | {"images": images, "prompt": "\n".join(view.questions)}, tuple(one.text for one in view.answers)
