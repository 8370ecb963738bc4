"""From a raw row, in any accepted format, to a Sample."""

from pathlib import Path

from qwenvl_train.data.sample import Image, Part, Sample, Text, Turn
from qwenvl_train.errors import UserError

IMAGE_MARK = "<image>"
LLAVA_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
ROLES = ("system", "user", "assistant")


def to_sample(row: object, source: str, line: int, folder: Path, format: str = "auto") -> Sample:
    """Raises a UserError that names file, line and id."""
    where = f"{source}:{line}"
    if not isinstance(row, dict):
        raise UserError(f"{where} is a JSON {type(row).__name__}; a row is an object.")
    id = str(row.get("id", f"{Path(source).stem}-{line}"))
    where = f"{where} (id {id})"
    match _detect(row, where) if format == "auto" else format:
        case "llava":
            turns = _llava_turns(row, where, folder)
        case "messages":
            turns = _message_turns(row, where, folder)
    _check_order(turns, where)
    return Sample(id=id, source=source, line=line, turns=turns)


def _detect(row: dict, where: str) -> str:
    if "conversations" in row:
        return "llava"
    if "messages" in row:
        return "messages"
    raise UserError(
        f"{where} has keys {', '.join(sorted(map(str, row)))}; a row needs 'conversations' (LLaVA form) or 'messages'."
    )


def _llava_turns(row: dict, where: str, folder: Path) -> tuple[Turn, ...]:
    """`{"image": …, "conversations": [{"from": "human", "value": "<image>\\nWhat?"}, …]}`"""
    named = row.get("image", [])
    if not isinstance(named, str | list):
        raise UserError(f"{where}: image is {named!r}; give one path or a list of paths.")
    if "video" in row:
        raise UserError(f"{where} names a video; videos are not read yet.")
    paths = [named] if isinstance(named, str) else named
    marks = 0
    turns = []
    for number, turn in enumerate(_list(row, "conversations", where), start=1):
        place = f"{where}, turn {number}"
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise UserError(f"{place} needs the keys 'from' and 'value', both text.")
        role = LLAVA_ROLES.get(str(turn.get("from")))
        if role is None:
            raise UserError(f"{place} is from {turn.get('from')!r}; known are {', '.join(LLAVA_ROLES)}.")
        # An answer's words are never placeholders; a question's <image> stands for the next picture.
        pieces = turn["value"].split(IMAGE_MARK) if role == "user" else [turn["value"]]
        parts: list[Part] = []
        for index, piece in enumerate(pieces):
            if index:
                if marks < len(paths):
                    parts.append(_image(paths[marks], place, folder))
                marks += 1
            # The line break beside <image> belongs to the mark: the published template has none there.
            piece = piece.removeprefix("\n") if index else piece
            last = index == len(pieces) - 1
            piece = piece if last else piece.removesuffix("\n")
            if piece:
                parts.append(Text(piece))
        turns.append(Turn(role, tuple(parts), train=role == "assistant"))
    if marks != len(paths):
        raise UserError(
            f"{where} has {marks} {IMAGE_MARK} in its questions but {len(paths)} pictures; "
            f"every picture needs one {IMAGE_MARK} where it belongs."
        )
    return tuple(turns)


def _message_turns(row: dict, where: str, folder: Path) -> tuple[Turn, ...]:
    """`{"messages": [{"role": "user", "content": [{"type": "image", "image": …}, {"type": "text", …}]}, …]}`"""
    turns = []
    for number, message in enumerate(_list(row, "messages", where), start=1):
        place = f"{where}, turn {number}"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, dict) else None
            raise UserError(f"{place} has the role {role!r}; known are {', '.join(ROLES)}.")
        content = message.get("content")
        entries = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(entries, list):
            raise UserError(f"{place}: content is {content!r}; give text or a list of parts.")
        train = message.get("train", True)
        if not isinstance(train, bool):
            raise UserError(f"{place}: train is {train!r}; give true or false.")
        parts = tuple(_part(entry, place, folder) for entry in entries)
        turns.append(Turn(message["role"], parts, train=train and message["role"] == "assistant"))
    return tuple(turns)


def _part(entry: object, place: str, folder: Path) -> Part:
    match entry:
        case {"type": "text", "text": str(text), **rest} if not rest:
            return Text(text)
        case {"type": "image", "image": path, **rest} if not rest:
            return _image(path, place, folder)
    raise UserError(
        f'{place} has the part {entry!r}; known are {{"type": "text", "text": …}} and '
        f'{{"type": "image", "image": path}}.'
    )


def _image(path: object, place: str, folder: Path) -> Image:
    if not isinstance(path, str) or not path:
        raise UserError(f"{place}: {path!r} is not the path of a picture.")
    file = folder / path.removeprefix("file://")
    if not file.is_file():
        raise UserError(f"{place}: the picture {file} does not exist; relative paths start at {folder}.")
    return Image(str(file))


def _list(row: dict, key: str, where: str) -> list:
    value = row.get(key)
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: {key!r} must be a list of turns, and not empty.")
    return value


def _check_order(turns: tuple[Turn, ...], where: str) -> None:
    roles = [turn.role for turn in turns]
    body = roles[1:] if roles[0] == "system" else roles
    expected = [("user", "assistant")[index % 2] for index in range(len(body))]
    if body != expected or not body or len(body) % 2:
        raise UserError(
            f"{where}: the turns go {', '.join(roles)}; after an optional system turn, "
            "user and assistant take turns and the assistant is last."
        )
    for number, turn in enumerate(turns, start=1):
        if not any(isinstance(part, Image) or part.text.strip() for part in turn.parts):
            raise UserError(f"{where}, turn {number}: the {turn.role}'s turn is empty.")
    if not any(turn.train for turn in turns):
        raise UserError(f"{where} has no turn to learn from: every assistant turn says train: false.")
