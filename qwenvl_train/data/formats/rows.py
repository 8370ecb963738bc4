"""Read the turns of a raw row from the columns in which its format keeps them."""

from dataclasses import replace

from qwenvl_train.data.formats.keys import REJECTING, has_own_media, misspelt
from qwenvl_train.data.formats.turns import RawTurn, check_order, column_turns, listed_turns
from qwenvl_train.data.media.locate import shown
from qwenvl_train.errors import UserError

# For each format, the column that holds its turns or its question, and the column of the answer if it has its own.
_COLUMNS = {
    "llava": ("conversations", None),
    "sharegpt": ("conversations", None),
    "messages": ("messages", None),
    "prompt_completion": ("prompt", "completion"),
    "query_response": ("query", "response"),
    "instruction": ("instruction", "output"),
}


def read_turns(row: dict, format: str, where: str) -> tuple[list[RawTurn], list[RawTurn]]:
    """Return all turns, in an order that makes a conversation, and the rejected turns of a preference row.

    The rejected turns are the turns of the rejected answer. When that answer is about media of its own, they are the
    whole conversation with it.
    """
    if format == "preference":
        return _preference(row, where)
    for key in REJECTING:
        if row.get(key):
            raise UserError(
                f"{where} has {key!r}, a key of preference rows; for supervised fine-tuning, keep only the better "
                "answer. DPO takes 'chosen' and 'rejected', or an answer and 'rejected_response'."
            )
    question, answer = _COLUMNS[format]
    for key in filter(None, (question, answer)):
        if key not in row:
            raise UserError(
                f"{where} has no {key!r}, which the format {format} needs; keep rows of one format in a file, "
                f"and set its format only if it is detected wrongly.{misspelt(row, [key])}"
            )
    turns = _asked(row, question, where)
    turns += column_turns(row, answer, "assistant", where) if answer else []
    check_order(turns)
    return turns, []


def _asked(row: dict, key: str, where: str) -> list[RawTurn]:
    """Return the turns before the answer, or all turns when the answer has no column of its own."""
    match key:
        case "conversations" | "messages":
            turns = listed_turns(row, key, where)
        case "prompt":
            # Answers in a prompt are context and are not trained, as is usual for this format.
            turns = [
                replace(turn, train=False) if turn.train is None else turn
                for turn in column_turns(row, key, "user", where)
            ]
        case "query":
            turns = [*_history(row, where), RawTurn("user", _text(row, key, where), f"{where}, {key}")]
        case "instruction":
            words = [text for text in (_text(row, key, where), _text(row, "input", where)) if text]
            turns = [*_history(row, where), RawTurn("user", "\n".join(words), f"{where}, {key}")]
    return _with_system(row, turns, where)


def _with_system(row: dict, turns: list[RawTurn], where: str) -> list[RawTurn]:
    # In files with a system column, a row without a system turn has it empty.
    if not row.get("system"):
        return turns
    if turns[0].role == "system":
        raise UserError(f"{turns[0].place} is a system turn, but the row also has a column 'system'; keep one of them.")
    return [RawTurn("system", _text(row, "system", where), f"{where}, system"), *turns]


def _history(row: dict, where: str) -> list[RawTurn]:
    turns: list[RawTurn] = []
    history = row.get("history", [])
    if not isinstance(history, list):
        raise UserError(f"{where}: 'history' is {shown(history)}; give a list of questions with their answers.")
    for number, pair in enumerate(history, start=1):
        place = f"{where}, history {number}"
        if not isinstance(pair, list | tuple) or [type(text) for text in pair] != [str, str]:
            raise UserError(f"{place} is {shown(pair)}; give a question and its answer as a list of two texts.")
        turns += [RawTurn("user", pair[0], place), RawTurn("assistant", pair[1], place)]
    return turns


def _text(row: dict, key: str, where: str) -> str:
    value = row.get(key, "")
    if not isinstance(value, str):
        raise UserError(f"{where}: {key!r} is {shown(value)}; give text.")
    return value


def _preference(row: dict, where: str) -> tuple[list[RawTurn], list[RawTurn]]:
    asked, chosen, rejected = _pair(row, where)
    check_order(asked + chosen)
    check_order(asked + rejected)
    wrong = [turn for turn in asked if turn.train] + [turn for turn in chosen + rejected if turn.train is False]
    if wrong:
        raise UserError(f"{wrong[0].place}: a preference row compares its two answers; remove train, loss and weight.")
    asked = [replace(turn, train=False) for turn in asked]
    return asked + chosen, asked + rejected if has_own_media(row) else rejected


def _pair(row: dict, where: str) -> tuple[list[RawTurn], list[RawTurn], list[RawTurn]]:
    """Return the shared turns, the chosen turns and the rejected turns."""
    if not any(key in row for key in ("chosen", "rejected", "rejected_messages")):
        turns = read_turns({key: row[key] for key in row if key not in REJECTING}, _format_of(row, where), where)[0]
        # The same answer may be right about some pictures and wrong about others.
        same = "rejected_response" not in row and has_own_media(row)
        rejected = turns[-1:] if same else column_turns(row, "rejected_response", "assistant", where)
        return turns[:-1], turns[-1:], rejected
    if "rejected_messages" in row:
        rejected = column_turns(row, "rejected_messages", "assistant", where)
        return _parted(row, listed_turns(row, "messages", where), rejected, where)
    chosen, rejected = (column_turns(row, key, "assistant", where) for key in ("chosen", "rejected"))
    if chosen[0].role != "assistant":
        return _parted(row, chosen, rejected, where)
    question, answer = _COLUMNS[_format_of(row, where)]
    if answer and row.get(answer):
        raise UserError(
            f"{where} has {answer!r} as well as 'chosen' and 'rejected'; a pair has two answers, so remove it."
        )
    return _asked(row, question, where), chosen, rejected


def _format_of(row: dict, where: str) -> str:
    """Return the format of the question of a preference row."""
    for format, (question, _) in _COLUMNS.items():
        if question in row:
            return format
    raise UserError(f"{where} has two answers, but no question; give 'prompt', 'messages' or 'conversations'.")


def _parted(
    row: dict, chosen: list[RawTurn], rejected: list[RawTurn], where: str
) -> tuple[list[RawTurn], list[RawTurn], list[RawTurn]]:
    """Split two whole conversations into the turns that they share at the beginning, the chosen turns and the rejected
    turns."""
    same = [one == other for one, other in zip(_words(chosen), _words(rejected), strict=False)]
    shared = same.index(False) if False in same else len(same)
    if shared == min(len(chosen), len(rejected)) or chosen[shared].role != "assistant":
        raise UserError(
            f"{where}: the chosen and the rejected conversation must be the same up to an answer and differ in it; "
            f"these share their first {shared} turns."
        )
    if "prompt" in row:
        prompt = column_turns(row, "prompt", "user", where)
        if _words(prompt) != _words(chosen[:shared])[-len(prompt) :]:
            raise UserError(f"{where}: 'prompt' is not the question in 'chosen' and 'rejected'; remove it.")
    return _with_system(row, chosen[:shared], where), chosen[shared:], rejected[shared:]


def _words(turns: list[RawTurn]) -> list[tuple[object, ...]]:
    return [turn.words for turn in turns]
