"""Stretches of a text in one script."""

import re

_HAN = r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = r"\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff"
_SCRIPTS = {
    "Latin": r"a-zA-Z\u00c0-\u024f\u1e00-\u1eff",
    "Chinese": _HAN,
    "Japanese": _KANA + _HAN,
    "Korean": r"\uac00-\ud7a3",
    "Cyrillic": r"\u0400-\u052f",
    "Greek": r"\u0370-\u03ff",
    "Arabic": r"\u0620-\u065f\u066e-\u06d3",
    "Hebrew": r"\u05d0-\u05ea",
    "Devanagari": r"\u0900-\u0963",
    "Thai": r"\u0e01-\u0e4e",
}
_UNSPACED = {"Chinese", "Japanese", "Thai"}
# Between words of one stretch there may be spaces, marks and figures, but no end of a sentence.
_BETWEEN = r"[\s\d,，、;；:：'’\-–%()]*"
_STRETCHES = {name: re.compile(rf"[{letters}]+(?:{_BETWEEN}[{letters}]+)*") for name, letters in _SCRIPTS.items()}
_ANY = {name: re.compile(rf"[{letters}]") for name, letters in (_SCRIPTS | {"Japanese": _KANA}).items()}
_CHARACTERS_OF_A_WORD = 2


def scripts_in(text: str) -> dict[str, float]:
    """Return the size of each script in a text, in words. Two characters of a script without spaces count as a word."""
    if text.isascii():
        return {"Latin": float(text.count(" ") + 1)}
    found = {name: [stretch[0] for stretch in pattern.finditer(text)] for name, pattern in _used(text).items()}
    return {name: sum(size(one, name) for one in stretches) for name, stretches in found.items()}


def stretches(text: str, script: str) -> list[str]:
    """Return the stretches of a text in one script, up to the ends of sentences."""
    return _STRETCHES[script].findall(text)


def size(stretch: str, script: str) -> float:
    """Return the size of a stretch in words."""
    if script in _UNSPACED:
        return sum(character.isalpha() for character in stretch) / _CHARACTERS_OF_A_WORD
    return float(len(stretch.split()))


def belong_together(main: str, other: str) -> bool:
    """Return whether texts whose main script is one may have the other as well."""
    return {main, other} == {"Korean", "Chinese"}


def _used(text: str) -> dict[str, re.Pattern[str]]:
    found = {name: _STRETCHES[name] for name, pattern in _ANY.items() if pattern.search(text)}
    if "Japanese" in found:
        # Its Chinese characters belong to it.
        found.pop("Chinese", None)
    return found
