"""What is shown of an answer besides its text: how it ended, its boxes, and the drawing of them."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.families.thoughts import BEGIN, END
from qwenvl_train.files import replacing
from qwenvl_train.reporting.console import console_on
from qwenvl_train.verbs.chat.grounding import Grounding, drawing
from qwenvl_train.verbs.chat.session import Answer
from qwenvl_train.verbs.chat.settings import ChatConfig

_DIM, _PLAIN = "\x1b[2m", "\x1b[22m"


def show(pieces: Iterable[str]) -> None:
    """Print an answer while it is generated. On a terminal that shows styles, its thoughts are dimmed."""
    console = console_on()
    dims = console.is_terminal and not console.is_dumb_terminal and not console.no_color
    try:
        for piece in dimmed(pieces) if dims else pieces:
            print(piece, end="", flush=True)
    finally:  # the answer may be stopped amid its thoughts
        if dims:
            print(_PLAIN, end="", flush=True)


def dimmed(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the pieces of an answer, with the signs by which a terminal dims its thoughts."""
    said, dim = "", False
    for piece in pieces:
        said += piece
        if not dim and said.lstrip().startswith(BEGIN) and END not in said:
            dim = True
            yield _DIM
        elif dim and END in said:
            dim = False
            rest = len(said) - said.index(END) - len(END)
            yield piece[: len(piece) - rest] + _PLAIN
            piece = piece[len(piece) - rest :]
        yield piece


def about(answer: Answer, config: ChatConfig, stopped: bool = False) -> Iterator[str]:
    """Yield lines about an answer. Its boxes are drawn into a file, which the last line names."""
    if stopped:
        yield "(stopped)"
    elif not answer.ended:
        yield f"(cut after {answer.tokens} tokens; chat.max_new_tokens sets the limit)"
    yield from answer.grounding.in_words()
    if answer.grounding.problem:
        yield f"({answer.grounding.problem})"
    if answer.grounding.regions:
        yield f"drawn into {saved(answer.grounding, config)}"


def as_json(answer: Answer, config: ChatConfig) -> dict[str, Any]:
    return {
        "model": config.model.path,
        "answer": answer.text,
        "regions": answer.grounding.as_json(),
        "drawing": str(saved(answer.grounding, config)) if answer.grounding.regions else None,
        "tokens": {"prompt": answer.prompt_tokens, "answer": answer.tokens},
        "ended": answer.ended,
    }


def saved(grounding: Grounding, config: ChatConfig) -> Path:
    """Write the drawing of boxes and points as a PNG, and return its path."""
    folder = (Path(config.chat.save) if config.chat.save else Path(config.output_dir) / "chat").expanduser()
    picture = drawing(grounding)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _free(folder / f"{datetime.now():%Y%m%d-%H%M%S}.png")
        with replacing(path) as file:
            picture.save(file, "png")
    except OSError as error:
        raise UserError(f"chat.save={folder} cannot be written: {error.strerror or error}.") from None
    return path.absolute()


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}.png")
    return free
