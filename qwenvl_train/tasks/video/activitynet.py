"""ActivityNet Captions: an object from the names of videos to their duration, timestamps and sentences."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Converter, Records, Refused, RowOptions
from qwenvl_train.tasks.files import first_record, read_json
from qwenvl_train.tasks.video.clips import Clip, Event, clip_rows, video_file
from qwenvl_train.tasks.video.times import span_of


def matches(source: Path) -> bool:
    found = first_record(source)
    record = next(iter(found.values()), None) if isinstance(found, dict) else None
    return isinstance(record, dict) and {"timestamps", "sentences"} <= record.keys()


def rows(source: Path, options: RowOptions) -> Records:
    yield from clip_rows(_clips(source, options), options)


def _clips(source: Path, options: RowOptions) -> Iterator[Clip | Refused]:
    found = read_json(source)
    if not isinstance(found, dict):
        raise UserError(f"{source} must be an object from the names of videos to their annotations.")
    for name, record in found.items():
        where = f"{source}, {name}"
        try:
            events = _events(record)
            video = video_file(name, source, options)
        except UserError as error:
            yield Refused(where, str(error))
            continue
        caption = " ".join(event.text for event in events)
        yield Clip(name, where, video, events, caption, name=name)


def _events(record: Any) -> list[Event]:
    timestamps, sentences = (
        record.get(key) if isinstance(record, Mapping) else None for key in ("timestamps", "sentences")
    )
    if not isinstance(timestamps, list) or not isinstance(sentences, list) or len(timestamps) != len(sentences):
        raise UserError("it needs as many timestamps as sentences")
    events = []
    for number, (times, sentence) in enumerate(zip(timestamps, sentences, strict=True), start=1):
        if not isinstance(sentence, str) or not sentence.strip():
            raise UserError(f"sentence {number} is empty")
        start, end = times if isinstance(times, list) and len(times) == 2 else (times, None)
        span = span_of(start, end, record.get("duration"), f"event {number}")
        events.append(Event(sentence.strip(), (span,)))
    return events


ACTIVITYNET = Converter("activitynet", "ActivityNet Captions' timestamps and sentences", matches, rows)
