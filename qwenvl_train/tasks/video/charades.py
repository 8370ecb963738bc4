"""Charades-STA: a .txt file with a line for each sentence, as `video start end##sentence`."""

import re
from collections.abc import Iterator
from pathlib import Path

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Converter, Records, Refused, RowOptions
from qwenvl_train.tasks.video.clips import Clip, Event, clip_rows, lost, video_file
from qwenvl_train.tasks.video.times import span_of

_LINE = re.compile(r"(\S+)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)\s*##\s*(\S.*)")


def matches(source: Path) -> bool:
    if not source.is_file() or source.suffix != ".txt":
        return False
    with source.open(encoding="utf-8", errors="replace") as file:
        return bool(_LINE.match(file.readline()))


def rows(source: Path, options: RowOptions) -> Records:
    yield from clip_rows(_clips(source, options), options)


def _clips(source: Path, options: RowOptions) -> Iterator[Clip | Refused]:
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not in UTF-8: {error}.") from None
    for number, line in enumerate(lines, start=1):
        where = f"{source}:{number}"
        if not line.strip():
            continue
        if not (found := _LINE.fullmatch(line.strip())):
            reason = f"it is {line.strip()!r}; expected video start end##sentence"
            yield lost(where, reason, line.split()[0])
            continue
        try:
            span = span_of(float(found[2]), float(found[3]), None, "the event")
            video = video_file(found[1], source, options)
        except UserError as error:
            yield lost(where, error, found[1])
            continue
        yield Clip(f"{found[1]}/{number}", where, video, [Event(found[4].strip(), (span,))], name=found[1])


CHARADES = Converter("charades", "Charades-STA's lines of video start end##sentence", matches, rows)
