"""QVHighlights: a .jsonl file with a query on each line, its video in `vid`, and its moments in relevant_windows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Converter, Records, Refused, Wanted
from qwenvl_train.tasks.files import first_record, records_of
from qwenvl_train.tasks.numbers import shown
from qwenvl_train.tasks.video.clips import Clip, Event, clip_rows, lost, video_file
from qwenvl_train.tasks.video.times import span_of


def finds(source: Path) -> bool:
    record = first_record(source)
    return isinstance(record, dict) and {"vid", "query"} <= record.keys()


def rows(source: Path, wanted: Wanted) -> Records:
    yield from clip_rows(_clips(source, wanted), wanted)


def _clips(source: Path, wanted: Wanted) -> Iterator[Clip | Refused]:
    for where, record in records_of(source):
        try:
            yield _clip(record, where, source, wanted)
        except UserError as error:
            yield lost(where, error, record.get("vid") if isinstance(record, dict) else None)


def _clip(record: Any, where: str, source: Path, wanted: Wanted) -> Clip:
    match record:
        case {"vid": str(name), "query": str(query), "relevant_windows": [_, *_] as windows} if query.strip():
            pass
        case _:
            raise UserError("it needs vid, query and relevant_windows, which a test set does not have")
    spans = []
    for window in windows:
        start, end = window if isinstance(window, list) and len(window) == 2 else (window, None)
        spans.append(span_of(start, end, record.get("duration"), f"the window {shown(window)}"))
    key = str(record.get("qid", where.rpartition("/")[2]))
    events = [Event(query.strip(), tuple(sorted(spans)))]
    return Clip(key, where, video_file(name, source, wanted), events, name=name)


QVHIGHLIGHTS = Converter("qvhighlights", "QVHighlights' queries with relevant_windows", finds, rows)
