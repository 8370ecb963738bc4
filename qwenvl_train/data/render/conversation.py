"""The text of a conversation, turn by turn, as the chat format of a checkpoint has it.

The renderer encodes it, and `template` compares it with the text of the checkpoint's own chat template.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qwenvl_train.config.schema import ThinkingMode
from qwenvl_train.data.render.thoughts import (
    is_asked_to_think,
    last_question,
    parted,
    place_of_thoughts,
    question_opening,
    refuse_thoughts,
    written_answer,
)
from qwenvl_train.data.sample import Image, Part, Sample, Turn, Video
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family

WrittenPart = str | Image | Video
PartText = Callable[[Part], str]
"""Returns the text of a part that is no medium."""

_ANSWER = "assistant\n"


@dataclass(frozen=True)
class WrittenTurn:
    role: str
    parts: tuple[WrittenPart, ...]
    """The text and the media between the tokens that begin and end the turn, the role included."""
    train: bool = False
    given: tuple[str, ...] = ()
    """The texts before the parts of an answer, which the model does not write. Each is encoded for itself, because at
    inference the model continues after exactly these tokens."""
    opens: bool = True
    """Whether the turn begins with a token of its own. Results of several tools in succession share one turn."""
    closes: bool = True


class ConversationWriter:
    def __init__(self, family: Family, mode: ThinkingMode = "auto"):
        self._family, self._chat, self._mode = family, family.chat, mode

    def asks_to_think(self, sample: Sample) -> bool:
        """Return whether the model is asked to think. It is the same for both conversations of a preference pair."""
        return self._chat.thinking is not None and is_asked_to_think(sample, self._chat.thinking, self._mode)

    def turns(self, sample: Sample, thinks: bool, text_of: PartText) -> Iterator[WrittenTurn]:
        """Yield the turns of a conversation, whose tools are schemas. `thinks` is what `asks_to_think` returns; some
        formats write it into the system turn."""
        if (system := self._system(sample, thinks, text_of)) is not None:
            yield WrittenTurn("system", (f"system\n{system}",))
        turns = sample.turns[1:] if sample.turns[0].role == "system" else sample.turns
        asked = last_question(turns, self._chat, sample.where) if self._chat.thinking else -1
        for index, turn in enumerate(turns):
            if turn.role == "assistant":
                after_question, last = index > asked, index == len(turns) - 1
                yield self._answer(turn, self._text(turn, sample, text_of), after_question, last, sample.where)
                continue
            content = [part if isinstance(part, Image | Video) else text_of(part) for part in turn.parts]
            content = _trimmed(content) if self._chat.trimmed else content
            if turn.role == "tool":
                opens = not index or turns[index - 1].role != "tool"
                closes = index + 1 == len(turns) or turns[index + 1].role != "tool"
                before = f"{'user' if opens else ''}\n<tool_response>\n"
                parts = (before, *content, "\n</tool_response>")
                yield WrittenTurn(turn.role, parts, opens=opens, closes=closes)
            else:
                yield WrittenTurn(turn.role, (f"{turn.role}\n", *content))

    def opening(self) -> tuple[str, ...]:
        """Return the texts after which the model answers a question, as a chat template writes them with
        add_generation_prompt."""
        if self._chat.thinking is None:
            return (_ANSWER,)
        return _ANSWER, question_opening(self._chat.thinking, self._mode)

    def _system(self, sample: Sample, thinks: bool, text_of: PartText) -> str | None:
        own = sample.turns[0] if sample.turns[0].role == "system" else None
        text = self._family.default_system
        if own is not None:
            if any(isinstance(part, Image | Video) for part in own.parts):
                raise UserError(
                    f"{sample.where}: the system turn contains an image or video; only turns of user and tool may."
                )
            text = "".join(map(text_of, own.parts))
            text = text.strip() if self._chat.trimmed else text
        tools = self._chat.tools.described(sample.schemas) if sample.schemas else None
        effort = self._chat.thinking.effort if self._chat.thinking and thinks else None
        blocks = [text, tools] if self._chat.tools.place == "after" else [effort, tools, text]
        return None if own is None and not any(blocks) else "\n\n".join(filter(None, blocks))

    def _text(self, turn: Turn, sample: Sample, text_of: PartText) -> str:
        if any(isinstance(part, Image | Video) for part in turn.parts):
            raise UserError(f"{sample.where}: an answer contains an image or video, but the model writes only text.")
        text = "".join(map(text_of, turn.parts))
        return text.strip() if self._chat.trimmed else text

    def _answer(self, turn: Turn, text: str, after_question: bool, last: bool, where: str) -> WrittenTurn:
        thinking = self._chat.thinking
        if thinking is None:
            refuse_thoughts(turn, self._family.name, where)
            calls = self._calls(turn, bool(turn.parts), where)
            return WrittenTurn(turn.role, (text + calls,), turn.train, (_ANSWER,))
        thoughts, words = parted(turn, text)
        thoughts = "" if self._mode == "off" else thoughts
        place = place_of_thoughts(thinking, self._mode, after_question, last)
        answer = written_answer(thoughts, words, self._chat, place, learn_empty=self._mode == "on" and turn.train)
        follows = bool(words.strip() if self._chat.trimmed else words)
        calls = self._calls(turn, follows, where)
        return WrittenTurn(turn.role, (answer.written + calls,), turn.train, (_ANSWER, answer.given))

    def _calls(self, turn: Turn, follows_text: bool, where: str) -> str:
        """Return the text of the calls of an answer, after its other text or alone."""
        written = "\n".join(self._chat.tools.call(call.name, call.arguments, where) for call in turn.calls)
        before = "\n\n" if self._chat.tools.calls == "xml" else "\n"
        return before + written if written and follows_text else written


def _trimmed(content: Sequence[WrittenPart]) -> list[WrittenPart]:
    """Return the content without white space at its ends. Media have text, too, so only text before the first and after
    the last of them is trimmed."""
    trimmed = list(content)
    while trimmed and isinstance(first := trimmed[0], str):
        if stripped := first.lstrip():
            trimmed[0] = stripped
            break
        del trimmed[0]
    while trimmed and isinstance(last := trimmed[-1], str):
        if stripped := last.rstrip():
            trimmed[-1] = stripped
            break
        del trimmed[-1]
    return trimmed
