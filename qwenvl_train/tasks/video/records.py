"""Our own records: a .jsonl or .json list with a video, and its events, its caption or a question about it."""

from pathlib import Path
from string import ascii_uppercase
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Converter, Records, RowOptions
from qwenvl_train.tasks.files import first_record
from qwenvl_train.tasks.video.clips import Asked, Clip, Event, clip_rows, clips_of_records, video_file
from qwenvl_train.tasks.video.times import span_of


def matches(source: Path) -> bool:
    record = first_record(source)
    return isinstance(record, dict) and "video" in record and bool({"events", "caption", "question"} & record.keys())


def rows(source: Path, options: RowOptions) -> Records:
    clips = clips_of_records(
        source,
        lambda record, where: _clip(record, where, source, options),
        lambda record: record.get("video") if record.get("events") else None,
    )
    yield from clip_rows(clips, options)


def _clip(record: Any, where: str, source: Path, options: RowOptions) -> Clip:
    if not isinstance(record, dict) or not isinstance(name := record.get("video"), str):
        raise UserError("it names no video")
    events, caption = record.get("events") or [], record.get("caption") or ""
    if not isinstance(events, list) or not isinstance(caption, str):
        raise UserError("events must be a list, and caption a text")
    duration = record.get("duration")
    found = [_event(one, duration, f"event {number}") for number, one in enumerate(events, start=1)]
    key = str(record.get("id", where.rpartition("/")[2]))
    return Clip(key, where, video_file(name, source, options), found, caption.strip(), _asked(record), name)


def _event(given: Any, duration: Any, what: str) -> Event:
    match given:
        case {"start": start, "end": end, "text": str(text)} if text.strip():
            return Event(text.strip(), (span_of(start, end, duration, what),))
    raise UserError(f"{what} needs start, end and text")


def _asked(record: dict[str, Any]) -> Asked | None:
    match record.get("question"), record.get("answer"), record.get("answers") or [], record.get("options") or []:
        case None, None, [], []:
            return None
        case str(question), str(answer), list(answers), list(options) if question.strip() and answer.strip():
            return _question(question, answer, answers, options)
    raise UserError("question and answer must be texts, and answers and options lists")


def _question(question: str, answer: str, answers: list[Any], options: list[Any]) -> Asked:
    """Return a question with its answer, which of several options is a letter."""
    texts = [one for one in (*answers, *options) if isinstance(one, str)]
    if len(texts) < len(answers) + len(options) or len(options) > len(ascii_uppercase):
        raise UserError("answers and options must be lists of texts, with up to 26 options")
    letters = ascii_uppercase[: len(options)]
    if options and answer not in (*letters, *options):
        raise UserError(f"its answer {answer!r} is none of its options")
    if answer in letters and answer in options and options.index(answer) != letters.index(answer):
        raise UserError(f"its answer {answer!r} is the letter of one option and the text of another one")
    if options and answer not in letters:
        answer = letters[options.index(answer)]
    return Asked(question.strip(), answer.strip(), tuple(answers), tuple(options))


RECORDS = Converter("records", "our records with a video, and events, a caption or a question", matches, rows)
