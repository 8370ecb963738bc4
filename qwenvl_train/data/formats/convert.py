"""Convert a raw row, in any accepted format, to a Sample."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from qwenvl_train.data.formats.detect import as_row, detect
from qwenvl_train.data.formats.keys import has_own_media, present, with_rejected_media
from qwenvl_train.data.formats.objects import LAST
from qwenvl_train.data.formats.reader import Reader
from qwenvl_train.data.formats.rows import read_turns
from qwenvl_train.data.formats.tools import read_tools
from qwenvl_train.data.formats.turns import RawTurn
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Box, Episode, Image, Sample, Text, ToolCall, Turn, sample_name
from qwenvl_train.errors import UserError

_REFUSED = {
    "add_vision_id": "set data.vision_ids=true, which applies to all rows, and remove this key.",
    "audio": "these models do not support audio; remove the row.",
    "audios": "these models do not support audio; remove the row.",
}


def row_id(row: object, source: str, line: int) -> str | None:
    """Return the id by which errors name a raw row: its own, or else one made from its file and line. Return None for
    a row that is not an object."""
    return _id_of(row, source, line) if isinstance(row, dict) else None


def to_sample(row: object, source: str, line: int, locator: Locator, format: str) -> Sample:
    """Return the Sample of a raw row. Raise UserError, naming the file, line and id, when the row cannot be used."""
    where = f"{source}:{line}"
    given = as_row(row, where)
    columns = present(given)
    id = _id_of(given, source, line)
    where = sample_name(source, line, id)
    for key, answer in _REFUSED.items():
        if columns.get(key):
            raise UserError(f"{where} has {key!r}; {answer}")
    raw_turns, raw_rejected = read_turns(columns, detect(given, where).format if format == "auto" else format, where)
    turns, rejected = _read(given, raw_turns, raw_rejected, where, locator)
    for turn, raw_turn in zip(turns + rejected, raw_turns + raw_rejected, strict=True):
        _check_words(turn, raw_turn.place)
    if not any(turn.train for turn in turns):
        raise UserError(f"{where} has no supervised turn: none of its answers is trained.")
    shared = 0 if has_own_media(columns) or not rejected else [turn.train for turn in turns].index(True)
    if rejected == turns[shared:]:
        raise UserError(f"{where}: the chosen and the rejected answer are the same, so there is nothing to prefer.")
    tools = read_tools(columns.get("tools"), where)
    accepted, metrics = _texts(columns.get("answers")), _texts(columns.get("metric"))
    targets = _boxes(columns.get("targets"))
    episode = _episode(columns.get("episode"))
    return Sample(id, source, line, tuple(turns), tools, tuple(rejected), shared, accepted, metrics, targets, episode)


def _texts(value: object) -> tuple[str, ...]:
    """Return the texts in a column for scoring, which may hold one text or a list. Data sets have columns of these
    names with other content, too, which says nothing here."""
    texts = [value] if isinstance(value, str) else value
    return tuple(texts) if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else ()


def _boxes(value: object) -> tuple[Box, ...]:
    """Return the boxes in a column for scoring, which holds a list of them. As for `_texts`, other content says
    nothing."""
    boxes = value if isinstance(value, list) else []
    whole = [box for box in boxes if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))]
    return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in whole) if len(whole) == len(boxes) else ()


def _episode(value: object) -> Episode | None:
    """Return the episode in a column for scoring. As for `_texts`, other content says nothing."""
    match value:
        case {"id": str(id), "steps": int(steps)} if steps > 0:
            return Episode(id, steps)
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _id_of(row: dict, source: str, line: int) -> str:
    own = row.get("id")
    return f"{_stem(source)}-{line}" if own is None else str(own)


@lru_cache(maxsize=16)
def _stem(source: str) -> str:
    return Path(source).stem


def _read(
    row: dict, raw_turns: list[RawTurn], raw_rejected: list[RawTurn], where: str, locator: Locator
) -> tuple[list[Turn], list[Turn]]:
    reader = Reader(row, where, locator)
    turns = [reader.turn(turn) for turn in raw_turns]
    if has_own_media(row):
        other = Reader(with_rejected_media(row), f"{where}, the rejected answer", locator)
        rejected = other.settle([other.turn(turn) for turn in raw_rejected], [])
        return _placed(reader.settle(turns, []), where), _placed(rejected, where)
    rejected = [reader.turn(turn) for turn in raw_rejected]
    turns = reader.settle(turns, rejected)
    shared = next((index for index, turn in enumerate(turns) if turn.train), 0)
    return _placed(turns, where), _placed(rejected, where, sum(map(_images, turns[:shared])))


def _placed(turns: list[Turn], where: str, before: int = 0) -> list[Turn]:
    """Return the turns with the image of each box and point in their tool calls, if the row does not name it. It is the
    last one before the call.

    Args:
        before: The number of images before the turns.
    """
    placed = []
    for turn in turns:
        regions = [region for call in turn.calls for _, region in call.regions]
        if any(region.image == LAST for region in regions) and not before:
            raise UserError(f"{where}: a tool call has a box or a point, but there is no image before it.")
        placed.append(replace(turn, calls=tuple(_in_image(call, before - 1) for call in turn.calls)))
        before += _images(turn)
    return placed


def _in_image(call: ToolCall, image: int) -> ToolCall:
    regions = ((key, replace(one, image=image) if one.image == LAST else one) for key, one in call.regions)
    return replace(call, regions=tuple(regions))


def _images(turn: Turn) -> int:
    return sum(isinstance(part, Image) for part in turn.parts)


def _check_words(turn: Turn, place: str) -> None:
    # A tool may return an empty answer, and an answer may consist of calls.
    if turn.role == "tool" or turn.calls:
        return
    if not any(not isinstance(part, Text) or part.text.strip() for part in turn.parts):
        raise UserError(f"{place}: the {turn.role} turn is empty; add its text, or remove the row.")
