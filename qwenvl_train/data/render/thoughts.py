"""The thoughts before an answer: where a chat format writes them, and what of them the model is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qwenvl_train.config.schema import ThinkingMode
from qwenvl_train.data.sample import Sample, Text, Turn
from qwenvl_train.errors import UserError
from qwenvl_train.families.chat_format import ChatFormat, Thinking
from qwenvl_train.families.family import Family
from qwenvl_train.families.thoughts import BEGIN, BEGIN_THOUGHTS, END, NO_THOUGHTS

Place = Literal["nowhere", "if given", "always"]
"""Where thoughts are written before an answer."""


@dataclass(frozen=True)
class WrittenAnswer:
    """The text of an answer in two parts."""

    given: str
    """What the model does not write: the beginning of its thoughts, or empty thoughts."""
    written: str


def check_mode(mode: ThinkingMode, family: Family, where: str) -> None:
    """Raise UserError unless the chat template of the checkpoint can be told what data.thinking says."""
    thinking, setting = family.chat.thinking, f"data.thinking={mode}"
    if mode == "auto":
        return
    if thinking is None:
        raise UserError(f"{setting}: the chat template of {where} has no thoughts; set data.thinking=auto.")
    if mode == "off" and not thinking.optional:
        raise UserError(
            f"{setting}: the chat template of {where} always asks for thoughts; set data.thinking=auto, or use a "
            "checkpoint that does not think."
        )
    if mode == "as_given" and thinking.earlier == "dropped":
        raise UserError(
            f"{setting}: the chat template of {where} leaves out the thoughts before the last question; set "
            "data.thinking=auto, and write a row for each question."
        )


def thinking_in_words(chat: ChatFormat, mode: ThinkingMode) -> list[str]:
    """Return a line that says how thoughts are written, or no line if answers have none."""
    if chat.thinking is None:
        return []
    asked = "to think" if question_opening(chat.thinking, mode) == BEGIN_THOUGHTS else "not to think"
    described = {
        "on": "the model is asked to think, and learns to end thoughts at once for answers without any",
        "off": "thoughts are left out, and the model is asked not to think",
    }.get(
        mode,
        "the model is asked to think for answers with thoughts and not to for the others; without an answer, it is "
        f"asked {asked}",
    )
    return [f"chat format: {chat.name}; {described} (data.thinking={mode})"]


def keeps_all(thinking: Thinking, mode: ThinkingMode) -> bool:
    """Return whether the answers before the last question keep their thoughts."""
    return thinking.earlier == "kept" or mode == "as_given"


def is_asked_to_think(sample: Sample, thinking: Thinking, mode: ThinkingMode) -> bool:
    """Return whether the model is asked to think, which `enable_thinking` of a chat template says.

    Unless the mode says so, it is asked as the answers were given: to think if one of them has thoughts. A question is
    asked as the template does by default.
    """
    if mode in ("on", "off"):
        return mode == "on"
    if sample.turns[-1].role != "assistant":
        return thinking.default
    return any(_has_thoughts(turn) for turn in sample.turns + sample.rejected if turn.role == "assistant")


def question_opening(thinking: Thinking, mode: ThinkingMode) -> str:
    """Return the text of the thoughts after which the model continues."""
    asked = mode == "on" if mode in ("on", "off") else thinking.default
    return BEGIN_THOUGHTS if asked else NO_THOUGHTS


def last_question(turns: Sequence[Turn], chat: ChatFormat, where: str) -> int:
    """Return the index of the last question. A user turn that is the result of a tool, as text, is not a question."""
    for index in range(len(turns) - 1, -1, -1):
        if turns[index].role == "user" and not _is_tool_response(turns[index], chat.trimmed):
            return index
    if chat.thinking and chat.thinking.every_answer:
        raise UserError(
            f"{where} has no question, which the chat template of this model needs: each user turn is the result of a "
            "tool, as text; add the question."
        )
    return len(turns) - 1


def place_of_thoughts(thinking: Thinking, mode: ThinkingMode, after_question: bool, last: bool) -> Place:
    """Return where thoughts are written before an answer.

    Args:
        after_question: Whether the answer follows the last question.
        last: Whether the answer is the last turn.
    """
    if not after_question and not keeps_all(thinking, mode):
        return "nowhere"
    return "always" if thinking.every_answer or last else "if given"


def parted(turn: Turn, words: str) -> tuple[str, str]:
    """Return the thoughts of an answer and the rest of its text, which is `words`."""
    if turn.thoughts is not None:
        return turn.thoughts, words
    if END not in words:
        return "", words
    pieces = words.split(END)
    return pieces[0].rstrip("\n").split(BEGIN)[-1].lstrip("\n"), pieces[-1].lstrip("\n")


def written_answer(thoughts: str, words: str, chat: ChatFormat, place: Place, learn_empty: bool) -> WrittenAnswer:
    """Return an answer with its thoughts.

    Empty thoughts are given to the model. With `learn_empty`, only their beginning is, so that the model learns to end
    its thoughts at once.
    """
    if place == "nowhere" or (place == "if given" and not thoughts):
        return WrittenAnswer("", words)
    thoughts, words = thoughts.strip(None if chat.trimmed else "\n"), words.lstrip("\n")
    if thoughts or learn_empty:
        return WrittenAnswer(BEGIN_THOUGHTS, f"{thoughts}\n{END}\n\n{words}")
    return WrittenAnswer(NO_THOUGHTS, words)


def refuse_other_question(sample: Sample, chat: ChatFormat) -> None:
    """Raise UserError when the answers of a pair have different last questions, since the turns that both share would
    then keep their thoughts before one answer only."""
    conversations = (sample.chosen_conversation, sample.rejected_conversation)
    if sample.shared and len({last_question(one.turns, chat, sample.where) for one in conversations}) > 1:
        raise UserError(
            f"{sample.where}: one answer is followed by another question, so that a Thinking model's earlier thoughts "
            "differ; write a row for each question."
        )


def refuse_thoughts(turn: Turn, family: str, where: str) -> None:
    if turn.thoughts is not None:
        raise UserError(
            f"{where} has reasoning_content, but the chat template of this {family} has no thoughts; use a Thinking "
            "checkpoint, or write them into the answer's text."
        )


def _has_thoughts(turn: Turn) -> bool:
    words = "".join(part.text for part in turn.parts if isinstance(part, Text))
    return bool(parted(turn, words)[0].strip())


def _is_tool_response(turn: Turn, trimmed: bool) -> bool:
    match turn.parts[0], turn.parts[-1]:
        case Text(first), Text(last):
            if trimmed:
                first, last = first.lstrip(), last.rstrip()
            return first.startswith("<tool_response>") and last.endswith("</tool_response>")
    return False
