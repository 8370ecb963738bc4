"""What a converter is: a function from the files of a published format to raw rows, which this project reads."""

import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError

Raw = dict[str, Any]
"""A raw row. Its images and videos are given by absolute paths."""


@dataclass(frozen=True)
class Refused:
    """A record of the source that gives no row."""

    where: str
    """The file and the record."""
    reason: str
    """What is wrong, and what to do, as a clause."""


@dataclass(frozen=True)
class Empty:
    """A record of the source that rightly gives no row, such as an image without objects."""

    where: str
    """The file and the record."""
    reason: str
    """What it lacks, as a clause."""


@dataclass(frozen=True)
class Prompts:
    """The questions of the rows, of which each row gets one."""

    texts: tuple[str, ...]
    seed: int = 0

    def ask(self, key: str, **names: str) -> str:
        """Return the question of a row. `key` is what the choice depends on, such as the id of the row.

        Args:
            names: What stands for {name} in a prompt. Other brackets are plain text.

        Raises:
            UserError: If the prompt has a bracket that is nearly one of the names.
        """
        return filled(self.template(key), names)

    def template(self, key: str) -> str:
        """Return the prompt of a row as the settings have it."""
        if not self.texts:
            raise UserError("convert.prompts has no question, and this converter asks one; set it.")
        # JSON can have halves of characters.
        return random.Random(f"{self.seed} {key}".encode(errors="replace")).choice(self.texts)


def filled(template: str, names: Mapping[str, str]) -> str:
    """Return a prompt with the values of {name}. Brackets in a value are plain text."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in names and (near := get_close_matches(found[1], names, n=1)):
            raise UserError(f"convert.prompts has {found[0]}; did you mean {{{near[0]}}}?")
        return names.get(found[1], found[0])

    return re.sub(r"\{(\w+)\}", value, template)


@dataclass(frozen=True)
class RowOptions:
    """What the user has chosen about the rows that a converter writes."""

    prompts: Prompts
    form: str
    """The form of the answers, one of those of the task."""
    media: Path | None = None
    """The folder of the images and videos that the source names. None for the folder of the source."""
    system: str = ""
    """The system turn of the rows. Empty for none."""
    without: frozenset[str] = frozenset()
    """The actions of agents whose steps give no row."""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names of a class by its name in the source. The first one is the answer, and the others are right, too."""
    seen_labels: set[str] = field(default_factory=set)
    """The classes of the source that a converter has asked the names of."""

    @property
    def unused_labels(self) -> list[str]:
        return [label for label in self.labels if label not in self.seen_labels]

    def named(self, label: str) -> str:
        self.seen_labels.add(label)
        return self.labels[label][0] if label in self.labels else label

    def other_names(self, label: str) -> list[str]:
        return list(self.labels.get(label, ())[1:])

    def medium(self, name: str, source: Path) -> Path:
        """Return the absolute path of an image or video that a file of the source names.

        A name has to stay in the folder `media`, if there is one. Data sets have absolute paths of the machine where
        they were made. Such a one is the file in the folder that has the longest end of the path in common with it.

        Raises:
            UserError: If it leaves the folder.
        """
        if self.media is None:
            return ((source if source.is_dir() else source.parent) / name).absolute()
        folder = self.media.absolute()
        path = folder / name
        if Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):
            return path
        ends = [path.parts[start:] for start in range(1, len(path.parts))] if os.path.isabs(name) else []
        inside = (folder.joinpath(*end) for end in ends if ".." not in end)
        found = next(filter(os.path.isfile, inside), None)
        if found is None:
            raise UserError(f"{name} is not in convert.media={self.media}")
        return found


Records = Iterator[Raw | Refused | Empty]


def rows_or_refused(where: str, rows: Iterator[Raw]) -> Records:
    """Yield the rows of a record, or what is wrong with it. A record with a fault gives no row at all."""
    try:
        yield from list(rows)
    except UserError as error:
        yield Refused(where, str(error).removesuffix("."))


@dataclass(frozen=True)
class Converter:
    name: str
    """The value of convert.format."""
    summary: str
    """What it reads, in a few words."""
    matches: Callable[[Path], bool]
    """Whether a file or folder has this format. Its content is looked at only as far as needed."""
    rows: Callable[[Path, RowOptions], Records]
    uses: tuple[str, ...] = ()
    """The settings of `RowOptions` that not every converter has: `system`, `without` or `labels`."""


@dataclass(frozen=True)
class Task:
    name: str
    converters: tuple[Converter, ...]
    forms: tuple[str, ...]
    """The forms that answers can have. The first one is the default."""

    def converter(self, format: str, source: Path) -> Converter:
        """Return the converter of a format, or with `auto` the first one that matches the source."""
        known = ", ".join(f"{one.name} ({one.summary})" for one in self.converters)
        if format != "auto":
            for converter in self.converters:
                if converter.name == format:
                    return converter
            raise UserError(f"convert.format={format}: {self.name} has the formats {known}.")
        for converter in self.converters:
            if converter.matches(source):
                return converter
        raise UserError(
            f"source={source}: no format of {self.name} is found there. There are: {known}. With convert.format=… you "
            "are told what it lacks of one of them."
        )
