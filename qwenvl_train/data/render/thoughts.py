"""The thoughts before an answer, as the chat template of the Thinking checkpoints writes them."""

from collections.abc import Sequence
from dataclasses import dataclass

from qwenvl_train.data.sample import Sample, Text, Turn
from qwenvl_train.errors import UserError

_BEGIN, _END = "<think>", "</think>"
BEGIN_THOUGHTS = f"{_BEGIN}\n"
"""The text before the thoughts, after which the model writes."""


@dataclass(frozen=True)
class ThinkingAnswer:
    """The text of an answer in two parts."""

    given: str
    """What the model does not write: the beginning of its thoughts, or empty thoughts."""
    written: str


def last_question(turns: Sequence[Turn]) -> int:
    """Return the index of the last question. Only answers after it keep their thoughts. A user turn that is the result
    of a tool, as text, is not a question."""
    questions = [index for index, turn in enumerate(turns) if turn.role == "user" and not _is_tool_response(turn)]
    return questions[-1] if questions else len(turns) - 1


def thinking_answer(words: str, thoughts: str | None, after_question: bool, last: bool) -> ThinkingAnswer:
    """Return an answer with its thoughts. `thoughts` are those that are given apart from `words`.

    The thoughts of an answer before the last question are left out. Without thoughts, the last answer of the
    conversation has empty ones, as it would have if the model were told not to think; they are not supervised.
    """
    if thoughts is None:
        thoughts, words = _parted(words)
    if not after_question or not (thoughts or last):
        return ThinkingAnswer("", words)
    thoughts, words = thoughts.strip("\n"), words.lstrip("\n")
    if not thoughts:
        return ThinkingAnswer(f"{_BEGIN}\n\n{_END}\n\n", words)
    return ThinkingAnswer(BEGIN_THOUGHTS, f"{thoughts}\n{_END}\n\n{words}")


def refuse_other_question(sample: Sample) -> None:
    """Raise UserError when the answers of a pair have different last questions, since the turns that both share would
    then keep their thoughts before one answer only."""
    conversations = (sample.chosen_conversation, sample.rejected_conversation)
    if sample.shared and len({last_question(conversation.turns) for conversation in conversations}) > 1:
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


def _parted(words: str) -> tuple[str, str]:
    if _END not in words:
        return "", words
    pieces = words.split(_END)
    return pieces[0].rstrip("\n").split(_BEGIN)[-1].lstrip("\n"), pieces[-1].lstrip("\n")


def _is_tool_response(turn: Turn) -> bool:
    match turn.parts[0], turn.parts[-1]:
        case Text(first), Text(last):
            return first.startswith("<tool_response>") and last.endswith("</tool_response>")
    return False
