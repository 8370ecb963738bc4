"""Pictures and clips that a row lists beside its text."""

from qwenvl_train.errors import UserError


class Column:
    """All of one kind, handed out as their marks are met."""

    def __init__(self, row: dict, kind: str, where: str):
        keys = [key for key in (kind, f"{kind}s") if row.get(key) is not None]
        if len(keys) > 1:
            raise UserError(f"{where} has the columns {kind!r} and '{kind}s'; keep one of them.")
        value = row[keys[0]] if keys else []
        self.kind = kind
        self.entries = list(value) if isinstance(value, list | tuple) else [value]
        if any(entry is None for entry in self.entries):
            raise UserError(f"{where}: {keys[0]!r} has an empty entry; leave it out, or name the file.")
        self.marks = 0
        self.spelt = False
        """Whether a typed part has the mark in its text, where it is plain text."""
        self._used: set[int] = set()

    def take(self, index: int | None) -> object:
        """What the next mark stands for, or the one of this number; None where there is none."""
        index = self.marks if index is None else index
        self.marks += 1
        self._used.add(index)
        return self.entries[index] if index < len(self.entries) else None

    @property
    def settled(self) -> bool:
        """Every mark has had its file, and every file its mark."""
        return self._used == set(range(len(self.entries)))
