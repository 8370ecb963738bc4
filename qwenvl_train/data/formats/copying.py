"""Copy a raw row, so that it gives the same sample when it is read from a file in another folder."""

import base64
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
from qwenvl_train.data.formats.renaming import renamed
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Content, Sample
from qwenvl_train.errors import UserError


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
    media = (*MEDIA, *REJECTED_MEDIA, *(column for name, column in (columns or {}).items() if name in MEDIA))
    copy = {key: _copied(_listed(value) if key in media else value, recording.found) for key, value in row.items()}
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


def _copied(value: object, found: list[tuple[object, Content]]) -> object:
    for reference, content in found:
        if type(reference) is type(value) and reference == value:
            return _written(content)
    match value:
        case dict():
            return {key: _copied(inner, found) for key, inner in value.items()}
        case list() | tuple():
            return [_copied(inner, found) for inner in value]
    return value


def _written(content: Content) -> str:
    return content if isinstance(content, str) else f"data:;base64,{base64.b64encode(content).decode()}"
