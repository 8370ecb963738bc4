"""The rows of a converter in a file, each checked by the reader that a training uses."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from qwenvl_train.config.schema import DataConfig
from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.media.locate import Locator, shown
from qwenvl_train.data.sample import Episode
from qwenvl_train.errors import UserError
from qwenvl_train.families.agent_tools import AgentTool
from qwenvl_train.files import replacing
from qwenvl_train.tasks.converter import Empty, Raw, Records, Refused
from qwenvl_train.tasks.files import no_medium
from qwenvl_train.verbs.convert.actions import Calls, calls_of, unlisted

_MEDIA = ("images", "videos")


@dataclass
class Written:
    rows: int = 0
    skipped: int = 0
    """Number of records that give no row."""
    skipped_file: str | None = None
    first_skipped: str | None = None
    empty: int = 0
    """Number of records that rightly give no row."""
    first_empty: str | None = None
    calls: Calls = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        facts = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "calls"}
        return facts | {"unlisted": [asdict(one) for one in unlisted(self.calls)]}


@dataclass(frozen=True)
class _Line:
    """A row as it is written."""

    text: bytes
    calls: set[tuple[AgentTool, str]]
    """The actions of published tools that it calls."""
    episode: Episode | None


def write_rows(records: Records, to: Path, data: DataConfig) -> Written:
    """Write the rows. The file appears when it is whole. Records that cannot be used end it, or are listed beside it
    with data.on_error=skip.

    Raises:
        UserError: If a record cannot be used, too many cannot, or there is no row.
    """
    written, skipped = Written(), []
    locator = Locator(to.parent, fenced=False, allow_remote=False, cache=to.parent)
    to.parent.mkdir(parents=True, exist_ok=True)
    with replacing(to) as file:
        for record in _checked(records, to, locator):
            if isinstance(record, _Line):
                file.write(record.text)
                written.rows += 1
                written.calls.update(record.calls)
                continue
            if isinstance(record, Empty):
                written.empty += 1
                written.first_empty = written.first_empty or f"{record.where}: {record.reason}"
                continue
            if data.on_error != "skip":
                raise UserError(f"{record.where}: {record.reason}. data.on_error=skip leaves such records out.")
            skipped.append(record)
            if len(skipped) > data.max_skipped:
                raise UserError(
                    f"{len(skipped)} records cannot be used, more than data.max_skipped={data.max_skipped}; the last: "
                    f"{record.where}: {record.reason}."
                )
        if not written.rows:
            told = f"{skipped[0].where}: {skipped[0].reason}" if skipped else written.first_empty
            first = f"; the first record: {told}" if told else ""
            raise UserError(f"There is no row to write{first}.")
    if skipped:
        beside = to.with_suffix(".skipped.jsonl")
        beside.write_text(
            "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in skipped), encoding="utf-8"
        )
        written.skipped, written.skipped_file = len(skipped), str(beside)
        written.first_skipped = f"{skipped[0].where}: {skipped[0].reason}"
    return written


def _checked(records: Records, to: Path, locator: Locator) -> Iterator[_Line | Refused | Empty]:
    """Yield the lines of the rows, with paths from the folder of the file, and the records that give none: also those
    whose row cannot be read, or whose images and videos do not exist."""
    number = 0
    episodes: dict[str, tuple[int, int]] = {}
    """The number of steps of each episode, and of its rows so far."""
    for record in records:
        if isinstance(record, Refused | Empty):
            yield record
            continue
        try:
            line = _line(record, number + 1, to, locator)
            if line.episode:
                steps, rows = episodes.get(line.episode.id, (line.episode.steps, 0))
                if line.episode.steps != steps or rows == steps:
                    raise UserError(f"two episodes have the id {line.episode.id}")
                episodes[line.episode.id] = steps, rows + 1
        except UserError as error:
            name = record.get("id") if isinstance(record, dict) else number + 1
            yield Refused(f"the row {name}", str(error).removesuffix("."))
            continue
        number += 1
        yield line


def _line(record: Raw, number: int, to: Path, locator: Locator) -> _Line:
    if not isinstance(record, dict):
        raise UserError(f"{shown(record)} is no row; a converter yields objects.")
    row = record | {key: _placed(record[key], to.parent) for key in _MEDIA if key in record}
    sample = to_sample(row, to.name, number, locator, "auto")
    for media in sample.media:
        for path in media.contents:
            if isinstance(path, str) and not os.path.isfile(path):
                raise no_medium(path)
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        raise UserError(f"it cannot be written as JSON: {error}") from None
    return _Line(text, calls_of(sample), sample.episode)


def _placed(entry: Any, folder: Path) -> Any:
    """Return an entry of a column with its paths relative to the folder, if they are in it. Images inside the row stay
    as they are."""
    match entry:
        case str() if entry.startswith("data:"):
            return entry
        case str():
            path = os.path.abspath(entry)
            inside = os.path.relpath(path, os.path.abspath(folder))
            return path if inside.startswith("..") else inside
        case list():
            return [_placed(one, folder) for one in entry]
        case dict():
            return {key: _placed(value, folder) if key in ("image", "video") else value for key, value in entry.items()}
    return entry
