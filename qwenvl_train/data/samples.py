"""All samples of data.train or data.eval as one sequence. Each sample is read from its source when it is indexed."""

import hashlib
import json
import math
import os
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.section import AllowRemote
from qwenvl_train.data.formats import Detected, copied_row, detect, moved_row, renamed, row_id, to_sample, with_answer
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.sources.files import look_held_out
from qwenvl_train.data.sources.finding import is_hub_id
from qwenvl_train.data.sources.opening import open_sources
from qwenvl_train.data.sources.source import Source
from qwenvl_train.data.sources.text import TextRows
from qwenvl_train.errors import UserError

_TRIED = 1000
"""Number of raw rows at the beginning of a source that are searched for its format. If all of them are broken, the
format is detected for each raw row separately."""


@dataclass(frozen=True)
class SampleRange:
    """The samples of one entry of the configuration, from index `start` up to but not including `stop`."""

    config: SourceConfig
    start: int
    stop: int


class Samples:
    def __init__(self, configs: tuple[SourceConfig, ...], key: str, allow_remote: AllowRemote, cache: Path):
        opened = [open_sources(config, key, cache, allow_remote) for config in configs]
        self.sources = [source for sources in opened for source in sources]
        self._key = key
        self._configs = [config for config, sources in zip(configs, opened, strict=True) for _ in sources]
        self._locators = [
            make_locator(source.folder, config, key, allow_remote, cache)
            for source, config in zip(self.sources, self._configs, strict=True)
        ]
        self._ends = list(accumulate(map(len, self.sources)))
        self._formats: dict[int, Detected | None] = {}
        sources = list(accumulate(map(len, opened), initial=0))
        self._sources_of_entries = list(map(range, sources, sources[1:]))
        """The indices in `sources` of each entry's sources."""
        stops = [self._ends[entry.stop - 1] for entry in self._sources_of_entries]
        self.entries = tuple(map(SampleRange, configs, [0, *stops], stops))
        self.chosen: np.ndarray | None = None
        """The indices that the samples have in `whole`, if these are a part of the samples."""
        self.whole = self

    def part(self, indices: np.ndarray) -> "Samples":
        """Return some of the samples, in the same order. `indices` are sorted."""
        assert self.chosen is None
        made = copy(self)
        made.chosen = indices
        made.entries = tuple(
            SampleRange(entry.config, *np.searchsorted(indices, (entry.start, entry.stop)).tolist())
            for entry in self.entries
        )
        return made

    def __len__(self) -> int:
        return self._ends[-1] if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        number, row = self._locate(index)
        source = self.sources[number]
        raw = self._raw(number, row)
        detected = self._format(number) or detect(raw, _where(source, row))
        return to_sample(raw, source.name, source.line(row), self._locators[number], detected.format)

    def origin(self, index: int) -> tuple[str, int]:
        """Return the source name and the line of a sample."""
        number, row = self._locate(index)
        return self.sources[number].name, self.sources[number].line(row)

    def entry_of(self, index: int) -> int:
        """Return the index in `entries` of the entry that a sample belongs to."""
        return bisect_right([entry.stop for entry in self.entries], index)

    def id(self, index: int) -> str | None:
        """Return the id of a raw row, whether or not it can be converted to a sample. Return None when it cannot be
        read."""
        number, row = self._locate(index)
        source = self.sources[number]
        try:
            return row_id(self._raw(number, row), source.name, source.line(row))
        except UserError:
            return None

    def index_in_whole(self, source: str, line: int) -> int | None:
        """Return the index in `whole` of the sample in a line of a source, or None if there is no such source."""
        for number, found in enumerate(self.sources):
            if found.name == source:
                row = bisect_left(range(len(found)), line, key=found.line)
                return row + (self._ends[number - 1] if number else 0)
        return None

    def copied(self, index: int) -> tuple[str, dict[str, Any]]:
        """Return the format of a sample, and its raw row in a form that gives the same sample in any other file."""
        number, row = self._locate(index)
        source = self.sources[number]
        raw, format = self._raw(number, row), self.format_of(index)
        return format, copied_row(raw, source.name, source.line(row), self._locators[number], format)

    def moved(self, index: int) -> bytes:
        """Return a line of JSON that gives the same sample in a file in any other folder, with the entry's `columns`,
        except for an id that follows from the name of the file. It has the bytes of the raw row where that is
        possible."""
        number, row = self._locate(index)
        source = self.sources[number]
        text = self.line_of(index)
        if text is not None and not self[index].media:
            return text
        raw = source.row(row)
        format, columns = self.format_of(index), self._configs[number].columns
        _, copy = moved_row(raw, source.name, source.line(row), self._locators[number], format, columns)
        if text is not None and copy == raw:
            return text
        return json.dumps(_finite(copy), ensure_ascii=False).encode()

    def line_of(self, index: int) -> bytes | None:
        """Return the bytes of a raw row in a text file, or None if they are no line of a .jsonl file."""
        number, row = self._locate(index)
        source = self.sources[number]
        text = source.text(row).strip() if isinstance(source, TextRows) else b"\n"
        return None if b"\n" in text else text

    def raw(self, index: int) -> object:
        """Return a raw row as its source stores it, or its text if it cannot be read as JSON."""
        number, row = self._locate(index)
        source = self.sources[number]
        try:
            return source.row(row)
        except UserError:
            return source.text(row).decode(errors="replace").strip() if isinstance(source, TextRows) else None

    def format_of(self, index: int) -> str:
        """Return the format of a sample."""
        number, row = self._locate(index)
        return (self._format(number) or detect(self._raw(number, row), _where(self.sources[number], row))).format

    def names(self) -> list[str]:
        return [source.name for source in self.sources]

    def files(self) -> Iterator[tuple[str, range]]:
        """Yield the name of each source with the indices of its samples."""
        ends = [0, *self._ends] if self.chosen is None else np.searchsorted(self.chosen, [0, *self._ends]).tolist()
        return zip(self.names(), map(range, ends, ends[1:]), strict=True)

    def fingerprint(self) -> str:
        """Return a hash of everything that the samples depend on, except for the media files that they name."""
        digest = hashlib.sha256(self.choice().encode())
        for source, config, locator in zip(self.sources, self._configs, self._locators, strict=True):
            read_as = (config.format, config.columns, str(locator.folder), locator.fenced, locator.allow_remote)
            digest.update(repr((source.name, source.fingerprint(), read_as)).encode())
        return digest.hexdigest()

    def choice(self) -> str:
        """Return a short digest of `chosen`. It is empty if these are all samples."""
        return "" if self.chosen is None else f"{zlib.crc32(self.chosen.astype(np.int64).tobytes()):08x}"

    def describe(self) -> list[str]:
        """Return a line for each source: its name, its number of raw rows, and their format with the reason for it.

        The files of one entry share a line if they have the same format. A further line names the files of an entry of
        data.train that look like held-out rows.
        """
        lines = []
        counts = [len(indices) for _, indices in self.files()]
        for samples, sources in zip(self.entries, self._sources_of_entries, strict=True):
            formats = {self._format(number) for number in sources}
            if len(sources) > 1 and len(formats) == 1:
                what = f"{samples.config.path}: {len(sources)} files,"
                lines.append(_described(what, self._counted(counts, sources), *formats))
            else:
                lines += [
                    _described(
                        f"{self.sources[number].name}:",
                        self._counted(counts, range(number, number + 1)),
                        self._format(number),
                    )
                    for number in sources
                ]
            names = [self.sources[number].name for number in sources]
            lines += trained_on_too(samples.config.path, names) if self._key == "data.train" else []
        return lines

    def _counted(self, counts: list[int], sources: range) -> str:
        """Return the number of samples of some sources in words. `counts` has the number of each source."""
        whole, counted = (sum(each[number] for number in sources) for each in (list(map(len, self.sources)), counts))
        of = "" if counted == whole else f" of {whole:,}"
        return f"{counted:,}{of} {'row' if whole == 1 else 'rows'}"

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the index of the source and the index of the raw row in it."""
        if self.chosen is not None:
            index = self.chosen[index]
        number = bisect_right(self._ends, index)
        return number, int(index) - (self._ends[number - 1] if number else 0)

    def _raw(self, number: int, row: int) -> object:
        """Return a raw row of a source, with its columns under the names that the entry gives them."""
        return renamed(self.sources[number].row(row), self._configs[number].columns)

    def _format(self, number: int) -> Detected | None:
        """Return the format of a source, as its entry sets it or as its first unbroken raw row shows it.

        Return None if the raw rows at the beginning of the source are all broken.
        """
        if number not in self._formats:
            config = self._configs[number]
            forced = None if config.format == "auto" else Detected(config.format, f"{config.format}: set in its entry")
            self._formats[number] = forced or self._first_format(number)
        return self._formats[number]

    def _first_format(self, number: int) -> Detected | None:
        source = self.sources[number]
        for row in range(min(len(source), _TRIED)):
            try:
                return detect(self._raw(number, row), _where(source, row))
            except UserError:
                # The error of this raw row is raised when its sample is read.
                continue
        return None


class Questions(Samples):
    """The conversations of data files without their last answers, which rows may also lack."""

    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(index).question

    def _raw(self, number: int, row: int) -> object:
        return with_answer(super()._raw(number, row))


def _finite(value: Any) -> Any:
    """Return a raw row without numbers that JSON does not have, which become null."""
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list():
            return [_finite(inner) for inner in value]
        case float():
            return value if math.isfinite(value) else None
    return value


def _where(source: Source, row: int) -> str:
    return f"{source.name}:{source.line(row)}"


def _described(what: str, rows: str, detected: Detected | None) -> str:
    return f"{what} {rows}, {detected.reason if detected else 'no known format in its first rows'}"


def trained_on_too(path: str, names: list[str]) -> list[str]:
    """Return a line that names the files of an entry of data.train that look like held-out rows, or no line if there
    are none."""
    if not (found := look_held_out(path, names)):
        return []
    files = ", ".join([*found[:3], *([f"and {len(found) - 3} more"] if len(found) > 3 else [])])
    return [
        f"{path}: trains also on {files}; if these are held-out rows, name them in data.eval, and only the others here"
    ]


def make_locator(folder: Path | str, config: SourceConfig, key: str, allow_remote: AllowRemote, cache: Path) -> Locator:
    """Return the Locator for the media of a source. `folder` is the folder of the source's files.

    Raise UserError when the entry's media_root is not a folder.
    """
    if config.media_root is None:
        # The rows of a hub id are not the user's own, and do not choose among all files of this machine.
        return Locator(folder=folder, fenced=is_hub_id(config.path), allow_remote=allow_remote, cache=cache)
    root = Path(os.path.expanduser(config.media_root)).absolute()
    if not root.is_dir():
        raise UserError(f"{key}: media_root {root} of {config.path} is not a folder.")
    return Locator(folder=root, fenced=True, allow_remote=allow_remote, cache=cache)
