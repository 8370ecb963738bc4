"""Give the columns of a raw row the names that the formats know, as `columns` in its entry says."""

from collections.abc import Mapping

from qwenvl_train.config.entries import ColumnName
from qwenvl_train.data.formats.keys import MEDIA, present

_WITH_EVERY_FORMAT = ("id", *MEDIA, "system", "tools", "objects")
_NAMES: dict[ColumnName, str] = {"answer": "completion"}
_TEXTS: tuple[ColumnName, ...] = ("prompt", "answer", "chosen", "rejected")


def renamed(row: object, columns: Mapping[ColumnName, str] | None) -> object:
    """Return a raw row with the columns that `columns` names, under their new names, and with those that every format
    can have. Its other columns are left out, so that they cannot be taken for turns.

    A turn whose column has no value is empty, so that the error about it names the turn.
    """
    if columns is None or not isinstance(row, dict):
        return row
    given = {_singular(name) for name in columns}
    kept = [
        name
        for name in _WITH_EVERY_FORMAT
        if name in row and _singular(name) not in given and name not in columns.values()
    ]
    texts = {_NAMES.get(name, name): "" for name in columns if name in _TEXTS}
    named = {_NAMES.get(name, name): row.get(column) for name, column in columns.items()}
    return {name: row[name] for name in kept} | texts | present(named)


def _singular(name: str) -> str:
    """Return the name that `image` and `images`, or `video` and `videos`, have in common."""
    return name.removesuffix("s") if name in MEDIA else name
