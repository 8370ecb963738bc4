"""Encodes text to token ids such that a sample's text can never produce control tokens."""

import hashlib
import re
from functools import cached_property

from tokenizers import Tokenizer

# The control tokens that structure a conversation. Only the renderer writes them.
_CONTROL = re.compile(r"(<\|(?:im_start|im_end|endoftext|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>)")


def has_control_tokens(text: str) -> bool:
    """Return whether a text has what looks like a control token, which would be encoded as ordinary text."""
    return _CONTROL.search(text) is not None


class TextEncoder:
    """A tokenizer for the text of samples."""

    def __init__(self, tokenizer):
        self._backend: str = tokenizer.backend_tokenizer.to_str()

    def fingerprint(self) -> str:
        return hashlib.sha256(self._backend.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`.

        Control tokens in a sample's text are encoded as ordinary text. All other special tokens, box tokens included,
        keep their own ids.
        """
        if not text:
            return []
        as_published, as_words = self._tokenizers
        return [
            token
            for index, piece in enumerate(_CONTROL.split(text))
            for token in (as_words if index % 2 else as_published).encode(piece, add_special_tokens=False).ids
        ]

    @cached_property
    def _tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        as_published, as_words = Tokenizer.from_str(self._backend), Tokenizer.from_str(self._backend)
        as_words.encode_special_tokens = True
        return as_published, as_words

    def __getstate__(self) -> dict:
        """Return the state without the tokenizers, because each worker builds its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_tokenizers"}
