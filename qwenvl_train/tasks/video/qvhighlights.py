"""QVHighlights: a .jsonl file with a query on each line, its video in `vid`, and its moments in relevant_windows."""

from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Converter, Records, RowOptions
from qwenvl_train.tasks.files import first_record
from qwenvl_train.tasks.numbers import shown
from qwenvl_train.tasks.video.clips import Clip, Event, clip_rows, clips_of_records, video_file
from qwenvl_train.tasks.video.times import Span, span_of


def matches(source: Path) -> bool:
    record = first_record(source)
    return isinstance(record, dict) and {"vid", "query"} <= record.keys()


def rows(source: Path, options: RowOptions) -> Records:
    clips = clips_of_records(
        source, lambda record, where: _clip(record, where, source, options), lambda record: record.get("vid")
    )
    yield from clip_rows(clips, options)


def _clip(record: Any, where: str, source: Path, options: RowOptions) -> Clip:
    match record:
        case {"vid": str(name), "query": str(query), "relevant_windows": [_, *_] as windows} if query.strip():
            event = Event(query.strip(), _spans(windows, record.get("duration")))
        case _:
            raise UserError("it needs vid, query and relevant_windows, which a test set does not have")
    key = str(record.get("qid", where.rpartition("/")[2]))
    return Clip(key, where, video_file(name, source, options), [event], name=name)


def _spans(windows: list[Any], duration: Any) -> tuple[Span, ...]:
    spans = []
    for window in windows:
        start, end = window if isinstance(window, list) and len(window) == 2 else (window, None)
        spans.append(span_of(start, end, duration, f"the window {shown(window)}"))
    return tuple(sorted(spans))


QVHIGHLIGHTS = Converter("qvhighlights", "QVHighlights' queries with relevant_windows", matches, rows)
