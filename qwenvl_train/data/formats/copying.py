"""Copy a raw row, so that it gives the same sample when it is read from a file in another folder."""

import base64
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwenvl_train.data.formats.convert import to_sample
from qwenvl_train.data.formats.keys import MEDIA, REJECTED_MEDIA
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Content
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
    recording = _Recording(locator.folder, locator.fenced, locator.allow_remote, locator.cache)
    sample = to_sample(row, source, line, recording, format)
    assert isinstance(row, dict)
    copy = {key: _copied(_listed(key, value), recording.found) for key, value in row.items()} | {"id": sample.id}
    copy = json.loads(json.dumps(copy, ensure_ascii=False, default=str))
    if to_sample(copy, source, line, Locator(Path("/"), False, False, locator.cache), format) != sample:
        raise UserError(f"{sample.where} cannot be copied.")
    return copy


def _listed(key: str, value: object) -> object:
    """Return the list of media that a cell of a .csv file holds as JSON."""
    if key in (*MEDIA, *REJECTED_MEDIA) and isinstance(value, str) and value.startswith("["):
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
