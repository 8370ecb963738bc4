"""Choose the next raw row of a stream from the entries of data.train, and record how far each entry has been read."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.schema import DataConfig
from qwenvl_train.data.formats import detect, renamed, row_id, to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.samples import make_locator
from qwenvl_train.data.sources.flows import Flow, Hub, Position, RawRow
from qwenvl_train.data.sources.opening import open_flows
from qwenvl_train.errors import UserError


@dataclass(frozen=True)
class Entry:
    """An entry of data.train, with its sources in the order of reading and a locator for the media of each source."""

    name: str
    config: SourceConfig
    """The configuration of the entry. For a hub id, its revision is one commit."""
    files: tuple[tuple[Flow, Locator], ...]

    def size(self) -> int:
        """Return the total size of the files in bytes. It changes when files have changed."""
        return sum(flow.size() for flow, _ in self.files)

    def rows(self, file: int, start: Position | None) -> Generator[tuple[int, RawRow]]:
        for number in range(file, len(self.files)):
            for row in self.files[number][0].rows(start):
                yield number, row
            start = None


def open_entries(data: DataConfig, cache: Path, revisions: tuple[str | None, ...] | None = None) -> tuple[Entry, ...]:
    """Open the entries of data.train. For a resumed run, `revisions` are the revisions that the run has read before."""
    entries = []
    for number, config in enumerate(data.train):
        if revisions is not None:
            config = config.model_copy(update={"revision": revisions[number]})
        flows = open_flows(config, "data.train", cache, data.allow_remote)
        settled = flows[0].config if isinstance(flows[0], Hub) else config
        locators = (make_locator(flow.folder, config, "data.train", data.allow_remote, cache) for flow in flows)
        files = tuple(zip(flows, locators, strict=True))
        entries.append(Entry(f"data.train.{number} ({config.path})", settled, files))
    return tuple(entries)


@dataclass(frozen=True)
class StreamCursor:
    """The position up to which an entry has been read."""

    revision: str | None = None
    """The commit at which a hub id is read."""
    passes: int = 0
    """The number of complete passes through the entry."""
    drawn: int = 0
    """The number of samples drawn from the entry in all passes."""
    drawn_in_pass: int = 0
    """The number of samples drawn from the entry in the current pass."""
    ended: bool = False
    """Whether the entry has no more rows in the current pass, while other entries may still have some."""
    file: int = 0
    """The index of the file that is being read."""
    format: str | None = None
    """The format of that file, or None until a raw row has determined it."""
    place: Position | None = None
    """The position in that file. None is its beginning."""

    @property
    def whole(self) -> bool:
        """Whether every raw row of the entry has been read."""
        return self.ended or self.passes > 0


class NothingUsable(UserError):
    """Raised when none of the raw rows of an entry can be used."""


class Draw:
    """Draws the raw rows of a stream from its entries.

    With weights, the next row comes from the entry that is furthest behind its share, and an entry that ends begins
    again. Without weights, the entries take turns while they have rows, and begin the next pass together, so a pass
    contains each row once.
    """

    def __init__(self, entries: tuple[Entry, ...], progress: tuple[StreamCursor, ...]):
        numbers = range(len(entries)) if len(entries) > 1 else [None]
        self._readers = [_Reader(*each) for each in zip(numbers, entries, progress, strict=True)]
        self._weighted = entries[0].config.weight is not None

    @property
    def progress(self) -> tuple[StreamCursor, ...]:
        return tuple(reader.progress for reader in self._readers)

    def formats(self) -> list[list[str]]:
        """Return, for each entry, readable descriptions of the formats of the files that were read from."""
        return [sorted(reader.formats) for reader in self._readers]

    def next(self) -> "DrawnRow | None":
        """Return the next raw row, or None at the end of a pass."""
        while True:
            waiting = [reader for reader in self._readers if not reader.progress.ended]
            if not waiting:
                for reader in self._readers:
                    reader.begin_again()
                return None
            reader = min(waiting, key=_Reader.due)
            drawn = reader.read()
            if drawn is not None:
                return drawn
            if self._weighted:
                reader.begin_again()

    def close(self) -> None:
        """Stop all reading. A new Draw continues from `progress`."""
        for reader in self._readers:
            reader.close()


@dataclass(frozen=True)
class DrawnRow:
    """A raw row that was drawn, with the reader of its entry and the source that it comes from."""

    reader: "_Reader"
    flow: Flow
    locator: Locator
    row: RawRow

    @property
    def origin(self) -> tuple[str, int]:
        """The name of the source and the line of the row."""
        return self.flow.name, self.row.line

    @property
    def entry(self) -> int | None:
        """Index of the entry in data.train, or None if it is the only one."""
        return self.reader.number

    def id(self) -> str | None:
        """Return the id of the raw row, or None when it cannot be read."""
        try:
            return row_id(self._raw(), *self.origin)
        except UserError:
            return None

    def sample(self) -> Sample:
        """Return the sample that the raw row is converted to. Raise UserError when the row cannot be converted."""
        raw = self._raw()
        format = self.reader.format(raw, f"{self.flow.name}:{self.row.line}")
        return to_sample(raw, *self.origin, self.locator, format)

    def _raw(self) -> object:
        """Return the raw row, with its columns under the names that the entry gives them."""
        return renamed(self.row.read(), self.reader.columns)

    def count(self) -> None:
        """Count the row as a sample of its entry. Call this when the row can be used."""
        self.reader.count()


class _Reader:
    def __init__(self, number: int | None, entry: Entry, progress: StreamCursor):
        self.number, self._entry, self.progress = number, entry, progress
        self.columns = entry.config.columns
        self._rows = entry.rows(progress.file, progress.place)
        self.formats: set[str] = set() if progress.format is None else {progress.format}
        if entry.config.format != "auto":
            self.formats = {f"{entry.config.format}: set in its entry"}

    def due(self) -> float:
        """Return the priority of the entry: the next sample comes from the entry with the smallest value.

        With weights, this is the Sainte-Laguë method.
        """
        weight = self._entry.config.weight
        return self.progress.drawn_in_pass if weight is None else (self.progress.drawn + 0.5) / weight

    def read(self) -> DrawnRow | None:
        """Return the next raw row of this pass, or None when the pass has no more rows."""
        for file, row in self._rows:
            format = self.progress.format if file == self.progress.file else None
            self.progress = replace(self.progress, file=file, format=format, place=row.after)
            return DrawnRow(self, *self._entry.files[file], row)
        self.progress = replace(self.progress, ended=True)
        if self.progress.drawn_in_pass == 0:
            raise self._useless()
        return None

    def format(self, raw: object, where: str) -> str:
        """Return the format of the file. The first raw row whose format is detected determines it."""
        if self._entry.config.format != "auto":
            return self._entry.config.format
        if self.progress.format is not None:
            return self.progress.format
        detected = detect(raw, where)
        self.formats.add(detected.reason)
        self.progress = replace(self.progress, format=detected.format)
        return detected.format

    def count(self) -> None:
        progress = self.progress
        self.progress = replace(progress, drawn=progress.drawn + 1, drawn_in_pass=progress.drawn_in_pass + 1)

    def begin_again(self) -> None:
        before = self.progress
        self.progress = StreamCursor(before.revision, before.passes + 1, before.drawn)
        self._rows = self._entry.rows(0, None)

    def close(self) -> None:
        self._rows.close()

    def _useless(self) -> UserError:
        if self.progress.place is None:
            return UserError(f"{self._entry.name} has no rows.")
        return NothingUsable(
            f"{self._entry.name}: none of its rows can be used; data.on_error=raise and data.too_long=error show what "
            "is wrong with the first."
        )
