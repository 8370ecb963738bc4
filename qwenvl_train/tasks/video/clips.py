"""The rows of a video, from its events, its caption and its questions."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Raw, Records, Refused, Wanted
from qwenvl_train.tasks.grounding.regions import refused_or_rows
from qwenvl_train.tasks.video.times import Span, clock, seconds

FORMS = ("clock", "seconds", "clock_by_event", "seconds_by_event", "caption", "question")
"""All events of a video with their times, or the times of one event, as in Qwen's cookbook or in seconds; the caption;
the answer to a question."""
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


def clip_rows(clips: Iterable[Clip | Refused], wanted: Wanted) -> Records:
    """Yield the rows of clips. For the forms with all events, the clips of a video become one."""
    whole = _merged(clips) if wanted.form in ("clock", "seconds") else clips
    for clip in whole:
        if isinstance(clip, Refused):
            yield clip
        else:
            yield from refused_or_rows(clip.where, _rows(clip, wanted))


def video_file(name: str, source: Path, wanted: Wanted) -> Path:
    """Return the path of a video. A name without an ending is that of the first file that exists with one."""
    path = wanted.medium(name, source)
    if path.suffix.lower() in ENDINGS:
        return path
    files = [path.with_name(path.name + ending) for ending in ENDINGS]
    return next((file for file in files if file.is_file()), files[0])


def _merged(clips: Iterable[Clip | Refused]) -> Iterator[Clip | Refused]:
    of_video: dict[Path, Clip] = {}
    for clip in clips:
        if isinstance(clip, Refused):
            yield clip
        elif first := of_video.get(clip.video):
            of_video[clip.video] = replace(first, key=clip.video.stem, events=[*first.events, *clip.events])
        else:
            of_video[clip.video] = clip
    yield from of_video.values()


def _rows(clip: Clip, wanted: Wanted) -> Iterator[Raw]:
    match wanted.form:
        case "caption":
            yield _row(clip, clip.key, wanted.prompts.ask(clip.key), _needed(clip.caption, "caption", wanted))
        case "question":
            yield _question_row(clip, _needed(clip.asked, "question", wanted), wanted)
        case "clock" | "seconds":
            events = _needed(clip.events, "events", wanted)
            answer = _all_in_json(events) if wanted.form == "clock" else _all_in_lines(events)
            yield _row(clip, clip.key, wanted.prompts.ask(clip.key), answer, metric=["temporal"])
        case _:
            for number, event in enumerate(_needed(clip.events, "events", wanted), start=1):
                key = clip.key if len(clip.events) == 1 else f"{clip.key}/{number}"
                lines = ", ".join(seconds(span) for span in event.spans)
                answer = _all_in_json([event]) if wanted.form.startswith("clock") else lines
                yield _row(clip, key, wanted.prompts.ask(key, event=event.text), answer, metric=["temporal"])


def _question_row(clip: Clip, asked: Asked, wanted: Wanted) -> Raw:
    lines = [
        asked.question,
        *(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, asked.options, strict=False)),
    ]
    question = wanted.prompts.ask(clip.key, question="\n".join(lines))
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


def _needed(found: Any, name: str, wanted: Wanted) -> Any:
    if not found:
        raise UserError(f"it has no {name}, which the form {wanted.form} needs")
    return found
