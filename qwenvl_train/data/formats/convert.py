"""From a raw row, in any accepted format, to a Sample."""

from pathlib import Path

from qwenvl_train.data.formats.detect import as_row, detect
from qwenvl_train.data.formats.keys import present
from qwenvl_train.data.formats.reader import Reader
from qwenvl_train.data.formats.rows import read_turns
from qwenvl_train.data.formats.tools import read_tools
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Sample, Text, Turn, place_of
from qwenvl_train.errors import UserError

_REFUSED = {
    "add_vision_id": "set data.vision_ids=true, which holds for all rows, and leave it out.",
    "audio": "these models hear nothing; leave the row out.",
    "audios": "these models hear nothing; leave the row out.",
}


def to_sample(row: object, source: str, line: int, locator: Locator, format: str) -> Sample:
    """Raises a UserError that names file, line and id."""
    where = f"{source}:{line}"
    given = as_row(row, where)
    columns = present(given)
    id = str(columns.get("id", f"{Path(source).stem}-{line}"))
    where = place_of(source, line, id)
    for key, answer in _REFUSED.items():
        if columns.get(key):
            raise UserError(f"{where} has {key!r}; {answer}")
    said, lost = read_turns(columns, detect(given, where).format if format == "auto" else format, where)
    reader = Reader(given, where, locator)
    turns, rejected = [reader.turn(turn) for turn in said], [reader.turn(turn) for turn in lost]
    turns = reader.settle(turns, rejected)
    for turn, origin in zip(turns + rejected, said + lost, strict=True):
        _check_words(turn, origin.place)
    if not any(turn.train for turn in turns):
        raise UserError(f"{where} has no turn to learn from: none of its answers is trained.")
    if rejected == turns[[turn.train for turn in turns].index(True) :]:
        raise UserError(f"{where}: the chosen and the rejected answer are the same, so there is nothing to prefer.")
    tools = read_tools(columns.get("tools"), where)
    return Sample(id, source, line, tuple(turns), tools, tuple(rejected))


def _check_words(turn: Turn, place: str) -> None:
    # A tool may well answer with nothing.
    if turn.role != "tool" and not any(not isinstance(part, Text) or part.text.strip() for part in turn.parts):
        raise UserError(f"{place}: the {turn.role}'s turn is empty; write what is said there, or leave the row out.")
