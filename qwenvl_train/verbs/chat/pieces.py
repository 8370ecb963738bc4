"""The text of an answer, piece by piece while it is generated."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import torch
from transformers import StoppingCriteria
from transformers.generation import BaseStreamer

ENDS = ("<|im_end|>", "<|endoftext|>")
"""The tokens that end an answer."""


@dataclass(frozen=True)
class Piece:
    text: str
    tokens: int
    """The number of tokens generated so far, with the one that ends the answer."""
    ended: bool
    """Whether the model has ended the answer."""


class _Pieces(BaseStreamer):
    """Puts the text of generated tokens into a queue. Control tokens stay, since an answer with boxes may consist of
    them, except for those that end the answer."""

    def __init__(self, tokenizer: Any, queue: "SimpleQueue[Piece | None]"):
        self._tokenizer, self._queue = tokenizer, queue
        self._ends = set(tokenizer.convert_tokens_to_ids(list(ENDS)))
        self._prompt_seen = False
        self._waiting: list[int] = []
        """Tokens that end within a character."""
        self._count, self._ended = 0, False

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for token in value.flatten().tolist():
            self._count += 1
            self._ended = token in self._ends
            self._waiting += [] if self._ended else [token]
        text = self._tokenizer.decode(self._waiting)
        if text and not text.endswith("\ufffd"):
            self._put(text)

    def end(self) -> None:
        self._put(self._tokenizer.decode(self._waiting))

    def _put(self, text: str) -> None:
        self._waiting = []
        self._queue.put(Piece(text, self._count, self._ended))


class _Stop(StoppingCriteria):
    def __init__(self) -> None:
        self.event = Event()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def text_pieces(generate: Callable[..., None], tokenizer: Any) -> Generator[Piece, None, None]:
    """Yield the text that `generate` produces in a thread, and stop it when the iterator is closed.

    `generate` is called with arguments of transformers' method of that name.
    """
    queue: SimpleQueue[Piece | None] = SimpleQueue()
    stop, failures = _Stop(), []
    ends = tokenizer.convert_tokens_to_ids(list(ENDS))

    def work() -> None:
        try:
            generate(
                streamer=_Pieces(tokenizer, queue),
                stopping_criteria=[stop],
                eos_token_id=ends,
                pad_token_id=ends[1],
            )
        except BaseException as error:  # raised again where the pieces are read
            failures.append(error)
        finally:
            queue.put(None)

    worker = Thread(target=work, daemon=True)
    worker.start()
    try:
        while (piece := queue.get()) is not None:
            yield piece
    finally:
        stop.event.set()
        worker.join()
    if failures:
        raise failures[0]
