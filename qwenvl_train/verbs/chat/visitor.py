"""What one visitor of the page has asked, as messages of gradio's chat. It does not import gradio."""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from qwenvl_train.data.formats import Reference
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.verbs.chat.grounding import drawing
from qwenvl_train.verbs.chat.model import ChatModel, Sampling
from qwenvl_train.verbs.chat.session import Answer, ChatSession

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpeg", ".mpg")
_TAG, _ENTITY = re.compile(r"<(?=[a-zA-Z/!?])"), re.compile(r"&(?=#?\w+;)")
_SECONDS = 0.05
"""The least time between two updates of the page."""

Messages = list[dict[str, Any]]


class Visitor:
    def __init__(self, models: list[ChatModel], sampling: Sampling):
        # A visitor's files are uploaded. Paths and addresses are never taken from text.
        locator = Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/"))
        self._sessions = [ChatSession(model, sampling, locator) for model in models]
        self._messages: list[Messages] = [[] for _ in models]
        self._drawings = TemporaryDirectory(prefix="qwenvl-train-")
        self.stopped = False

    @property
    def messages(self) -> list[Messages]:
        """The messages of each model."""
        return [list(messages) for messages in self._messages]

    def clear(self) -> None:
        for session, messages in zip(self._sessions, self._messages, strict=True):
            session.clear()
            messages.clear()

    def close(self) -> None:
        self._drawings.cleanup()

    def ask(self, text: str, files: list[str], system: str, sampling: Sampling) -> Iterator[list[Messages]]:
        """Yield the messages of all models while one model after the other answers.

        Raises:
            UserError: If a file cannot be used. Nothing is added to the conversation then.
        """
        self.stopped = False
        for session in self._sessions:
            session.sampling, session.system = sampling, system.strip() or None
        media: list[Reference] = [("video" if file.lower().endswith(VIDEOS) else "image", file) for file in files]
        before = self.messages
        try:
            for session in self._sessions:
                for reference in media:
                    session.measured(reference, "your question")
            for messages in self._messages:
                messages += [{"role": "user", "content": {"path": file}} for file in files]
                messages.append({"role": "user", "content": visible(text)})
            for session, messages in zip(self._sessions, self._messages, strict=True):
                yield from self._answered(session, messages, text, media)
        except UserError as error:
            self._messages = before
            raise UserError(_without_folders(message_of(error), files)) from None

    def _answered(
        self, session: ChatSession, messages: Messages, text: str, media: list[Reference]
    ) -> Iterator[list[Messages]]:
        pieces = session.ask(text, media)
        said, shown = "", 0.0
        messages.append({"role": "assistant", "content": "…"})
        yield self.messages
        for piece in pieces:
            said += piece
            messages[-1] = {"role": "assistant", "content": visible(said)}
            if monotonic() - shown > _SECONDS:
                yield self.messages
                shown = monotonic()
            if self.stopped:
                pieces.close()
                break
        if session.last is not None:
            messages[-1:] = self._whole(session.last)
        yield self.messages

    def _whole(self, answer: Answer) -> Messages:
        notes = []
        if not answer.ended:
            notes.append(f"{'stopped' if self.stopped else 'cut'} after {answer.tokens} tokens")
        if answer.grounding.problem:
            notes.append(answer.grounding.problem)
        text = "\n".join([answer.text, *(f"({note})" for note in notes)])
        found: Messages = [{"role": "assistant", "content": visible(text)}]
        if answer.grounding.regions:
            path = Path(self._drawings.name) / f"{len(list(Path(self._drawings.name).iterdir()))}.png"
            drawing(answer.grounding).save(path)
            found += [
                {"role": "assistant", "content": {"path": str(path), "alt_text": "the boxes and points of the answer"}},
                {"role": "assistant", "content": visible("\n".join(answer.grounding.in_words()))},
            ]
        return found


def visible(text: str) -> str:
    """Return a text such that the page shows all of it. Gradio takes <b> and &lt; as HTML, even without Markdown."""
    return _TAG.sub("&lt;", _ENTITY.sub("&amp;", text))


def _without_folders(message: str, files: list[str]) -> str:
    """Return a message that names uploaded files as the visitor knows them."""
    for file in files:
        message = message.replace(file, Path(file).name)
    return message
