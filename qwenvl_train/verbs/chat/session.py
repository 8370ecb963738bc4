"""A conversation with a model: its turns so far, and its answers in pieces. It knows no terminal and no page."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch

from qwenvl_train.data.formats import Reference, typed_question
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.render.layout import Layout
from qwenvl_train.data.sample import Media, Sample, Text, Turn
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.families.thoughts import BEGIN_THOUGHTS, END, without_thoughts
from qwenvl_train.verbs.chat.grounding import Grounding, grounded
from qwenvl_train.verbs.chat.model import ChatModel, Sampling
from qwenvl_train.verbs.chat.pieces import Piece

_SOURCE = "question"


@dataclass(frozen=True)
class Answer:
    text: str
    """With the beginning of the thoughts, if the prompt ends with it."""
    tokens: int
    """The number of generated tokens, with the one that ends the answer."""
    prompt_tokens: int
    ended: bool
    """Whether the model has ended the answer. Otherwise it was cut or stopped."""
    grounding: Grounding
    """The boxes and points of the answer."""


def answer_of(said: Piece, question: Sample, layout: Layout, model: ChatModel) -> Answer:
    """Return the answer to a question with this layout, of which the model has written `said`."""
    text = _begun(model) + said.text
    grounding = grounded(without_thoughts(text), question, layout.pictures, model.family)
    return Answer(text, said.tokens, layout.length, said.ended, grounding)


def _begun(model: ChatModel) -> str:
    """Return the beginning of the thoughts if the prompt ends with it."""
    return BEGIN_THOUGHTS if model.renderer.begins_thoughts else ""


class Reply:
    """The answer to a question, generated while it is iterated. Raises UserError if a file cannot be used."""

    def __init__(self, model: ChatModel, question: Sample, sampling: Sampling, seed: int | None = None):
        """
        Args:
            seed: That of the answer. With None, it is drawn by torch's generator, so that the same question can have
                another answer.
        """
        self._model, self._question = model, question
        self._options = sampling.options(int(torch.randint(2**31, ())) if seed is None else seed)
        self._rendered = model.renderer.render(question)
        self._text, self._tokens, self._ended = "", 0, False

    def __iter__(self) -> Iterator[str]:
        if begun := _begun(self._model):
            yield begun
        for piece in self._model.stream(self._rendered, self._options):
            self._text += piece.text
            self._tokens, self._ended = piece.tokens, piece.ended
            if piece.text:
                yield piece.text

    def whole(self) -> Answer:
        """Return the whole answer."""
        deque(self, maxlen=0)
        return self.answer

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        said = Piece(self._text, self._tokens, self._ended)
        return answer_of(said, self._question, self._rendered.layout, self._model)


class ChatSession:
    def __init__(self, model: ChatModel, sampling: Sampling, locator: Locator, system: str | None = None):
        self.model, self.sampling, self.system = model, sampling, system
        self._locator = locator
        self.turns: tuple[Turn, ...] = ()
        """The questions and answers so far."""
        self.last: Answer | None = None

    def clear(self) -> None:
        self.turns, self.last = (), None

    def measured(self, reference: Reference, where: str) -> str:
        """Return the size of a picture or clip in words. Raise UserError, which begins with `where`, if it cannot be
        used."""
        media = typed_question("", [reference], self._locator, where).parts[0]
        assert isinstance(media, Media)
        size = self.model.renderer.measured(media, where)
        height, width = size.original
        words = f"{width}×{height} pixels, {size.tokens} tokens"
        return words if isinstance(size, PictureSize) else f"{len(size.frames)} frames of {words}"

    def ask(self, text: str, media: Sequence[Reference] = ()) -> Generator[str, None, None]:
        """Yield the pieces of the answer. Afterwards `last` holds the answer, and question and answer are part of the
        conversation, also if the answer was stopped.

        Raises:
            UserError: If a file cannot be used. The conversation then stays as it was.
        """
        number = sum(turn.role == "user" for turn in self.turns) + 1
        where = f"{_SOURCE} {number}"
        question = typed_question(text, media, self._locator, where)
        sample = Sample(where, _SOURCE, number, (*self._opening, *self.turns, question))
        try:
            reply = Reply(self.model, sample, self.sampling)
        except UserError as error:
            raise UserError(message_of(error).replace(sample.where, where)) from None
        try:
            yield from reply
        finally:
            self.last = reply.answer
            if self.last.tokens:
                self.turns += (question, self._answered(self.last))

    @property
    def _opening(self) -> tuple[Turn, ...]:
        return () if self.system is None else (Turn("system", (Text(self.system),), train=False),)

    def _answered(self, answer: Answer) -> Turn:
        """Return an answer as a turn. All of an answer that was stopped amid its thoughts is thoughts."""
        if (begun := _begun(self.model)) and END not in answer.text:
            return Turn("assistant", (Text(""),), train=False, thoughts=answer.text.removeprefix(begun))
        return Turn("assistant", (Text(answer.text),), train=False)
