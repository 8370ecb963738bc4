"""Sessions with tiny models, and models that say what a test wants."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwenvl_train.config.compose import compose
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.verbs.chat.model import ChatModel, open_model, sampling_of
from qwenvl_train.verbs.chat.pieces import Piece
from qwenvl_train.verbs.chat.session import ChatSession
from qwenvl_train.verbs.chat.settings import CHAT, ChatConfig


def chat_config(*words: str) -> ChatConfig:
    return compose(list(words), CHAT).config


def chat_model(checkpoint: Path, *words: str) -> ChatModel:
    config = chat_config(f"model.path={checkpoint}", *words)
    return open_model(config, load_family(config.model))


def session_with(model: ChatModel, *words: str, tokens: int = 24) -> ChatSession:
    locator = Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/"))
    return ChatSession(model, sampling_of(chat_config(f"chat.max_new_tokens={tokens}", *words).chat), locator)


def let_it_say(monkeypatch: pytest.MonkeyPatch, *answers: str, interrupted: bool = False) -> list:
    """Let any model give these answers, word by word, and return the rendered questions."""
    waiting, asked = iter(answers), []

    def stream(self, rendered, sampling) -> Iterator[Piece]:
        asked.append(rendered)
        words = next(waiting).split(" ")
        for number, word in enumerate(words, start=1):
            yield Piece(word if number == 1 else f" {word}", number, ended=False)
            if interrupted:
                raise KeyboardInterrupt
        yield Piece("", len(words) + 1, ended=True)

    def decode(self, rendered, max_new_tokens) -> list[Piece]:
        asked.extend(rendered)
        return [Piece(next(waiting), 1, ended=True) for _ in rendered]

    monkeypatch.setattr(ChatModel, "stream", stream)
    monkeypatch.setattr(ChatModel, "decode", decode)
    return asked
