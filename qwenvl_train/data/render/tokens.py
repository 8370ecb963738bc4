"""From text to token ids, where a sample's words can never act as control tokens."""

import hashlib
import re
from functools import cached_property

from tokenizers import Tokenizer

# What gives a conversation its shape is written by `render` alone.
_CONTROL = re.compile(r"(<\|(?:im_start|im_end|endoftext|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>)")


class Words:
    def __init__(self, tokenizer):
        self._backend: str = tokenizer.backend_tokenizer.to_str()

    def fingerprint(self) -> str:
        return hashlib.sha256(self._backend.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Control tokens in a sample's words are words; the rest of the vocabulary, boxes included, is itself."""
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
        """Workers build their own tokenizers."""
        return {key: value for key, value in self.__dict__.items() if key != "_tokenizers"}
