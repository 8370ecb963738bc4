"""The pictures and clips that a raw row lists beside its text."""

import json
from contextlib import suppress

from qwenvl_train.errors import UserError


def _listed(value: object) -> object:
    """Return the list that a text holds as JSON, since the cells of a .csv file cannot hold a list in any other way."""
    if isinstance(value, str) and value.startswith("["):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


class Column:
    """All media of one kind that a raw row lists. They are taken in the order in which their marks are encountered."""

    def __init__(self, row: dict, kind: str, where: str):
        keys = [key for key in (kind, f"{kind}s") if row.get(key) is not None]
        if len(keys) > 1:
            raise UserError(f"{where} has the columns {kind!r} and '{kind}s'; keep one of them.")
        value = _listed(row[keys[0]]) if keys else []
        self.kind = kind
        self.entries = list(value) if isinstance(value, list | tuple) else [value]
        if any(entry is None for entry in self.entries):
            raise UserError(f"{where}: {keys[0]!r} has an empty entry; remove it, or give the path of the file.")
        self.marks = 0
        self.mark_in_text = False
        """Whether the text of a typed part contains the mark. There it is plain text and stands for no medium."""
        self._used: set[int] = set()

    def take(self, index: int | None) -> object:
        """Return the medium that the next mark stands for, or the medium with number `index` when it is given. Return
        None when there is no such medium."""
        index = self.marks if index is None else index
        self.marks += 1
        self._used.add(index)
        return self.entries[index] if index < len(self.entries) else None

    @property
    def settled(self) -> bool:
        """Whether every mark has a file and every file has a mark."""
        return self._used == set(range(len(self.entries)))
