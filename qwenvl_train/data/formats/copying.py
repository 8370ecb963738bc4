"""Copy a raw row, so that it gives the same sample when it is read from a file in another folder."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwenvl_train.config.entries import ColumnName
from qwenvl_train.data.formats.convert import to_sample
from qwenvl_train.data.formats.keys import MEDIA, REJECTED_MEDIA
from qwenvl_train.data.formats.parts import CONTENT
from qwenvl_train.data.formats.renaming import renamed
from qwenvl_train.data.media.inline import data_address
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Content, Sample
from qwenvl_train.errors import UserError

_CONTENT = ("content", "value")
"""The keys of a turn that hold its text or typed parts."""
_FILES = {key for keys in CONTENT.values() for key in keys} - {"base64"}
"""The keys of a typed part, or of an image_url object, that hold what a locator is asked for."""


@dataclass(frozen=True)
class _Recording(Locator):
    """A locator that returns absolute paths, and keeps each reference that it was asked for with what it stands for."""

    found: list[tuple[object, Content]] = field(default_factory=list)

    def locate(self, reference: object, where: str) -> Content:
        content = super().locate(reference, where)
        if isinstance(content, str):
            content = os.path.abspath(content)
        self.found.append((reference, content))
        return content


def copied_row(row: object, source: str, line: int, locator: Locator, format: str) -> dict[str, Any]:
    """Return the raw row as JSON can hold it, with its id. Its media have absolute paths, or are inside the row if they
    were stored in it. Raise UserError if the row cannot be copied without a change of its sample."""
    sample, copy = moved_row(row, source, line, locator, format)
    return copy | {"id": sample.id}


def moved_row(
    row: object,
    source: str,
    line: int,
    locator: Locator,
    format: str,
    columns: Mapping[ColumnName, str] | None = None,
) -> tuple[Sample, dict[str, Any]]:
    """Return the sample of a raw row, and the raw row as for `copied_row`, without an id of its own. `columns` are
    those of its entry, under which names the row keeps its columns."""
    recording = _Recording(locator.folder, locator.fenced, locator.allow_remote, locator.cache)
    sample = to_sample(renamed(row, columns), source, line, recording, format)
    assert isinstance(row, dict)
    media, found = _media_columns(columns or {}), recording.found
    copy = {key: _media(_listed(value), found) if key in media else _turns(value, found) for key, value in row.items()}
    copy = json.loads(json.dumps(copy, ensure_ascii=False, default=str))
    at_root = Locator(Path("/"), False, False, locator.cache)
    if to_sample(renamed(copy, columns), source, line, at_root, format) != sample:
        raise UserError(f"{sample.where} cannot be copied.")
    return sample, copy


def _listed(value: object) -> object:
    """Return the list of media that a cell of a .csv file holds as JSON."""
    if isinstance(value, str) and value.startswith("["):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _media_columns(columns: Mapping[ColumnName, str]) -> set[str]:
    """Return the names under which a row keeps its columns of media."""
    own = {name for name in (*MEDIA, *REJECTED_MEDIA) if name not in columns.values()}
    return own | {column for name, column in columns.items() if name in MEDIA}


def _turns(value: object, found: list[tuple[object, Content]]) -> object:
    """Return the value of a column, with the media in the typed parts of its turns replaced. Texts stay, also those
    that are the same as the path of a medium."""
    match value:
        case dict():
            return {key: _parts(inner, found) if key in _CONTENT else inner for key, inner in value.items()}
        case list() | tuple():
            return [_turns(inner, found) for inner in value]
    return value


def _parts(value: object, found: list[tuple[object, Content]]) -> object:
    if not isinstance(value, list):
        return value
    return [_of_part(part, found) if isinstance(part, dict) else part for part in value]


def _of_part(part: dict, found: list[tuple[object, Content]]) -> dict:
    return {key: _media(inner, found) if key in _FILES else inner for key, inner in part.items()}


def _media(value: object, found: list[tuple[object, Content]]) -> object:
    """Return a medium, a list of media or of frames, or a medium with its options, with its content replaced."""
    for reference, content in found:
        if type(reference) is type(value) and reference == value:
            return _written(content)
    match value:
        case dict():
            return _of_part(value, found)
        case list() | tuple():
            return [_media(inner, found) for inner in value]
    return value


def _written(content: Content) -> str:
    return content if isinstance(content, str) else data_address(content)
