"""Which row of a stream comes next, from the entries of data.train, and how far each of them is."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from qwenvl_train.config.schema import DataConfig, SourceConfig
from qwenvl_train.data.formats import detect, to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.samples import make_locator
from qwenvl_train.data.sources.flows import Flow, Hub, Place, RawRow
from qwenvl_train.data.sources.opening import open_flows
from qwenvl_train.errors import UserError


@dataclass(frozen=True)
class Entry:
    """One entry of data.train: its files, one after the other, and where the media of each lie."""

    name: str
    config: SourceConfig
    """The revision of a hub id is settled."""
    files: tuple[tuple[Flow, Locator], ...]

    def size(self) -> int:
        """In bytes; changes when files have changed."""
        return sum(flow.size() for flow, _ in self.files)

    def rows(self, file: int, place: Place | None) -> Generator[tuple[int, RawRow]]:
        for number in range(file, len(self.files)):
            for row in self.files[number][0].rows(place):
                yield number, row
            place = None


def open_entries(data: DataConfig, cache: Path, revisions: tuple[str | None, ...] | None = None) -> tuple[Entry, ...]:
    """`revisions` are those that a resumed run has read before."""
    entries = []
    for number, config in enumerate(data.train):
        if revisions is not None:
            config = config.model_copy(update={"revision": revisions[number]})
        flows = open_flows(config, "data.train", cache)
        settled = flows[0].config if isinstance(flows[0], Hub) else config
        locators = (make_locator(flow.folder, config, "data.train", data.allow_remote, cache) for flow in flows)
        files = tuple(zip(flows, locators, strict=True))
        entries.append(Entry(f"data.train.{number} ({config.path})", settled, files))
    return tuple(entries)


@dataclass(frozen=True)
class StreamCursor:
    """How far an entry is."""

    revision: str | None = None
    """Of a hub id: one commit."""
    passes: int = 0
    """How often it was gone through."""
    drawn: int = 0
    drawn_in_pass: int = 0
    """Samples that came from it, in all passes and in this one."""
    ended: bool = False
    """It has no more rows in this pass, which others are still in."""
    file: int = 0
    format: str | None = None
    """Of that file, once a row has told."""
    place: Place | None = None
    """In that file; None is its beginning."""

    @property
    def whole(self) -> bool:
        """Each of its rows was read."""
        return self.ended or self.passes > 0


class NothingUsable(UserError):
    """None of the rows of an entry makes a sample."""


class Draw:
    """With weights, the entry that is furthest behind its share is next, and one that ends begins again. Without, all
    take turns while they last, and begin the next pass together: so a pass holds each row once."""

    def __init__(self, entries: tuple[Entry, ...], progress: tuple[StreamCursor, ...]):
        self._readers = [_Reader(*pair) for pair in zip(entries, progress, strict=True)]
        self._weighted = entries[0].config.weight is not None

    @property
    def progress(self) -> tuple[StreamCursor, ...]:
        return tuple(reader.progress for reader in self._readers)

    def formats(self) -> list[list[str]]:
        """For people: of each entry, those of the files that were read from."""
        return [sorted(reader.told) for reader in self._readers]

    def next(self) -> "DrawnRow | None":
        """None at the end of a pass."""
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
        """Ends all reading; a new Draw goes on from the progress."""
        for reader in self._readers:
            reader.close()


@dataclass(frozen=True)
class DrawnRow:
    """A row whose turn it is."""

    reader: "_Reader"
    flow: Flow
    locator: Locator
    row: RawRow

    @property
    def place(self) -> tuple[str, int]:
        """Source and line."""
        return self.flow.name, self.row.line

    def sample(self) -> Sample:
        """Raises a UserError where the row makes none."""
        raw = self.row.read()
        format = self.reader.format(raw, f"{self.flow.name}:{self.row.line}")
        return to_sample(raw, *self.place, self.locator, format)

    def count(self) -> None:
        """The row can be used."""
        self.reader.count()


class _Reader:
    def __init__(self, entry: Entry, progress: StreamCursor):
        self._entry, self.progress = entry, progress
        self._rows = entry.rows(progress.file, progress.place)
        self.told: set[str] = set() if progress.format is None else {progress.format}
        if entry.config.format != "auto":
            self.told = {f"{entry.config.format}: as its entry says"}

    def due(self) -> float:
        """The next sample comes from the entry with the least of this; with weights, the method of Sainte-Laguë."""
        weight = self._entry.config.weight
        return self.progress.drawn_in_pass if weight is None else (self.progress.drawn + 0.5) / weight

    def read(self) -> DrawnRow | None:
        """The next row of this pass."""
        for file, row in self._rows:
            format = self.progress.format if file == self.progress.file else None
            self.progress = replace(self.progress, file=file, format=format, place=row.after)
            return DrawnRow(self, *self._entry.files[file], row)
        self.progress = replace(self.progress, ended=True)
        if self.progress.drawn_in_pass == 0:
            raise self._useless()
        return None

    def format(self, raw: object, where: str) -> str:
        """The first row of a file that tells a format tells that of the file."""
        if self._entry.config.format != "auto":
            return self._entry.config.format
        if self.progress.format is not None:
            return self.progress.format
        detected = detect(raw, where)
        self.told.add(detected.reason)
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
            f"{self._entry.name}: none of its rows can be used; data.on_error=raise and data.too_long=error tell what "
            "is wrong with the first."
        )
