"""The rows of a video, from its events, its caption and its questions."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from qwenvl_train.data.media.video_files import video_facts
from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Raw, Records, Refused, RowOptions, rows_or_refused
from qwenvl_train.tasks.files import records_of
from qwenvl_train.tasks.video.times import Span, clock, seconds

FORMS = ("clock", "seconds", "clock_by_event", "seconds_by_event", "caption", "question")
"""All events of a video with their times, or the times of one event, as in Qwen's cookbook or in seconds; the caption;
the answer to a question."""
LATE = 1.0
"""The seconds by which an event may end after its video. Rounded times do so."""
ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov")


class Event(NamedTuple):
    text: str
    spans: tuple[Span, ...]


class Asked(NamedTuple):
    """A question with its answer."""

    question: str
    answer: str
    answers: tuple[str, ...] = ()
    """Further right answers."""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    key: str
    """The id of its rows."""
    where: str
    """The file and the record, for messages."""
    video: Path
    events: Sequence[Event] = ()
    caption: str = ""
    asked: Asked | None = None
    name: str = ""
    """The name of the video in the source."""


@dataclass(frozen=True)
class Lost(Refused):
    """A record that gives no clip, of a video that is named."""

    name: str
    """The name of the video in the source."""


def lost(where: str, reason: object, name: Any) -> Refused:
    """Return a record that gives no clip. `name` is that of its video, if it has one."""
    return Lost(where, str(reason), name) if isinstance(name, str) else Refused(where, str(reason))


def clip_rows(clips: Iterable[Clip | Refused], options: RowOptions) -> Records:
    """Yield the rows of clips. For the forms with all events, the clips of a video become one."""
    whole = _merged(clips) if options.form in ("clock", "seconds") else clips
    for clip in whole:
        if isinstance(clip, Refused):
            yield Refused(clip.where, clip.reason)
        else:
            yield from rows_or_refused(clip.where, _rows(clip, options))


def clips_of_records(
    source: Path, read: Callable[[Any, str], Clip], name_of: Callable[[dict[str, Any]], Any]
) -> Iterator[Clip | Refused]:
    """Yield the clip of each record of a file, or what is wrong with the record.

    Args:
        read: Takes a record and its name in messages.
        name_of: Returns the name of the video of a record that is refused, if one of its events is then missing.
    """
    for where, record in records_of(source):
        try:
            yield read(record, where)
        except UserError as error:
            yield lost(where, error, name_of(record) if isinstance(record, dict) else None)


def video_file(name: str, source: Path, options: RowOptions) -> Path:
    """Return the path of a video. A name without an ending is that of the first file that exists with one.

    Raises:
        UserError: If no file can have this name.
    """
    path = options.medium(name, source)
    try:
        files = [path] if path.suffix.lower() in ENDINGS else [Path(f"{path}{ending}") for ending in ENDINGS]
        return next((file for file in files if file.is_file()), files[0])
    except OSError as error:
        raise UserError(f"the video {name[:40]} cannot be looked for: {error.strerror}") from None


def _merged(clips: Iterable[Clip | Refused]) -> Iterator[Clip | Refused]:
    """Yield a clip for each video, with the events of all of its clips. A video of which a record is refused gives
    none, since its answer would not have all events."""
    of_video: dict[str, Clip] = {}
    missing: dict[str, str] = {}
    for clip in clips:
        if isinstance(clip, Refused):
            if isinstance(clip, Lost):
                missing[_bare(clip.name)] = clip.where
            yield clip
        elif first := of_video.get(name := _bare(clip.name)):
            of_video[name] = replace(first, key=name, events=[*first.events, *clip.events])
        else:
            of_video[name] = clip
    for name, clip in of_video.items():
        if name in missing:
            yield Refused(clip.where, f"an event of its video is missing, that of {missing[name]}")
        else:
            yield clip


def _bare(name: str) -> str:
    """Return the name of a video without its ending."""
    ending = Path(name).suffix
    return name.removesuffix(ending) if ending.lower() in ENDINGS else name


def _rows(clip: Clip, options: RowOptions) -> Iterator[Raw]:
    if options.form not in ("caption", "question"):
        _refuse_late(clip)
    match options.form:
        case "caption":
            yield _row(clip, clip.key, options.prompts.ask(clip.key), _needed(clip.caption, "caption", options))
        case "question":
            yield _question_row(clip, _needed(clip.asked, "question", options), options)
        case "clock" | "seconds":
            events = _needed(clip.events, "events", options)
            answer = _all_in_json(events) if options.form == "clock" else _all_in_lines(events)
            yield _row(clip, clip.key, options.prompts.ask(clip.key), answer, metric=["temporal"])
        case _:
            for number, event in enumerate(_needed(clip.events, "events", options), start=1):
                key = clip.key if len(clip.events) == 1 else f"{clip.key}/{number}"
                lines = ", ".join(seconds(span) for span in event.spans)
                answer = _all_in_json([event]) if options.form.startswith("clock") else lines
                yield _row(clip, key, options.prompts.ask(key, event=event.text), answer, metric=["temporal"])


def _refuse_late(clip: Clip) -> None:
    """Raise UserError if an event ends after its video. Of a video that cannot be read the length is not known; whether
    it exists is told when its rows are checked."""
    try:
        facts = video_facts(str(clip.video), str(clip.video))
    except (UserError, OSError):
        return
    length = facts.frames / facts.rate
    last = max((end for event in clip.events for _, end in event.spans), default=0)
    if last > length + LATE:
        raise UserError(f"an event ends at {last:g} seconds, but {clip.video.name} ends at {length:.1f}")


def _question_row(clip: Clip, asked: Asked, options: RowOptions) -> Raw:
    lines = [
        asked.question,
        *(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, asked.options, strict=False)),
    ]
    question = options.prompts.ask(clip.key, question="\n".join(lines))
    return _row(clip, clip.key, question, asked.answer, answers=list(asked.answers))


def _row(clip: Clip, key: str, question: str, answer: str, **columns: Any) -> Raw:
    turns = [{"role": "user", "content": f"<video>{question}"}, {"role": "assistant", "content": answer}]
    row: Raw = {"id": key, "messages": turns, "videos": [str(clip.video)]}
    return row | {name: value for name, value in columns.items() if value}


def _in_order(events: Sequence[Event]) -> list[tuple[Span, str]]:
    """Return the spans of events by their start, each with what happens in it."""
    texts: dict[Span, list[str]] = {}
    for event in events:
        for span in event.spans:
            texts.setdefault(span, []).append(event.text)
    return [(span, " ".join(texts[span])) for span in sorted(texts)]


def _all_in_json(events: Sequence[Event]) -> str:
    found: dict[str, str] = {}
    for span, text in _in_order(events):
        found[clock(span)] = f"{found[clock(span)]} {text}" if clock(span) in found else text
    return json.dumps(found, ensure_ascii=False, indent=4)


def _all_in_lines(events: Sequence[Event]) -> str:
    return "\n".join(f"{seconds(span)}, {text}" for span, text in _in_order(events))


def _needed(found: Any, name: str, options: RowOptions) -> Any:
    if not found:
        raise UserError(f"it has no {name}, which the form {options.form} needs")
    return found
