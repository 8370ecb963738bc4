"""Words, lines and sentences of a text in any language."""

import re

_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f"
"""Characters of scripts that have no spaces between words, each of which counts as a word."""
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’-][^\W_{_UNSPACED}]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")


def words(text: str) -> list[str]:
    """Return the words of a text with case folded, without punctuation."""
    return _TOKEN.findall(text.casefold())


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, where each line ends one, too."""
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip()]


def lines(text: str) -> list[str]:
    """Return the lines of a text that have words in them."""
    return [line.strip() for line in text.splitlines() if words(line)]
