"""Answers that switch to another language in their midst."""

import re

from pydantic import PositiveFloat, PositiveInt

from qwenvl_train.curation.forms import form_of
from qwenvl_train.curation.languages import language_of
from qwenvl_train.curation.questions import asks_for_given_text
from qwenvl_train.curation.rules.rule import Measure, Rule, RuleSection
from qwenvl_train.curation.scripts import belong_together, scripts_in, size, stretches
from qwenvl_train.curation.text import sentences
from qwenvl_train.curation.verdict import Verdict, above, quoted
from qwenvl_train.curation.view import AnswerView, RowView


class MixedLanguages(RuleSection):
    max_share: PositiveFloat
    """The largest share of the words of an answer that may be in another language. Two characters of Chinese, Japanese
    or Thai count as a word."""
    min_words: PositiveInt
    """Answers with fewer words are not judged."""
    min_stretch: PositiveInt
    """Fewer consecutive words in another script are taken for names and loan words."""
    min_confidence: PositiveFloat
    """The probability from which on a sentence is taken for one in another language of the same script."""


_NAMES_A_LANGUAGE = re.compile(
    r"\b(?:chinese|english|french|german|spanish|japanese|korean|arabic|russian|italian|portuguese|hindi|thai|bilingual|"
    r"language|pinyin|deutsch|englisch|français|anglais|español|inglés)\b|中文|英文|英语|日语|日文|汉语|双语|语言|英語|日本語|中国語|"
    r"العربية|الإنجليزية|الصينية",
    re.IGNORECASE,
)
# Sentences of fewer words are too short for the detector.
_LEAST_SENTENCE = 8
_MOST_SENTENCES = 6


def judge(row: RowView, settings: MixedLanguages) -> Verdict | None:
    found = [share_of(answer, settings) for answer in row.answers if _is_judged(answer, settings.min_words)]
    if not found:
        return None
    share, stretch = max(found)
    return above(share, settings.max_share, lambda: f"{share:.0%} are in another language, such as {quoted(stretch)}")


def share_of(answer: AnswerView, settings: MixedLanguages) -> tuple[float, str]:
    """Return the share of an answer that is in another script or language than the rest, and an example."""
    text = answer.passage.own_words
    scripts = scripts_in(text)
    whole = sum(scripts.values())
    if not whole:
        return 0.0, ""
    main = max(scripts, key=lambda name: scripts[name])
    found = [
        (size(stretch, script), stretch)
        for script in scripts
        if script != main and not belong_together(main, script)
        for stretch in stretches(text, script)
        if _is_foreign(stretch, script, answer.asked, settings.min_stretch)
    ]
    if main == "Latin":
        found += _other_sentences(text, settings.min_confidence)
    longest = max(found, default=(0.0, ""))[1]
    return min(1.0, sum(count for count, _ in found) / whole), longest


def _is_judged(answer: AnswerView, least: int) -> bool:
    if len(answer.passage.words) < least or form_of(answer.text) != "prose":
        return False
    return not asks_for_given_text(answer.question) and not _NAMES_A_LANGUAGE.search(answer.question)


def _is_foreign(stretch: str, script: str, asked: str, least: int) -> bool:
    """Return whether a stretch is a part of a sentence, rather than a name or a term that the question has, too."""
    if size(stretch, script) < least or stretch.strip() in asked:
        return False
    if script != "Latin":
        return True
    # Titles and names begin with capital letters.
    given = stretch.split()
    return 2 * sum(word[0].islower() for word in given) >= len(given)


def _other_sentences(text: str, least: float) -> list[tuple[float, str]]:
    """Return the sentences in other languages than most sentences are in, with their numbers of words."""
    long = [sentence for sentence in sentences(text) if sentence.count(" ") + 1 >= _LEAST_SENTENCE][:_MOST_SENTENCES]
    if len(long) < 2:
        return []
    languages = [language_of(sentence) for sentence in long]
    sizes: dict[str, float] = {}
    for (language, confidence), sentence in zip(languages, long, strict=True):
        sizes[language] = sizes.get(language, 0.0) + confidence * len(sentence.split())
    main = max(sizes, key=lambda language: sizes[language])
    return [
        (float(len(sentence.split())), sentence)
        for (language, confidence), sentence in zip(languages, long, strict=True)
        if language != main and confidence >= least
    ]


RULE = Rule(
    "mixed_languages",
    "answers that switch between languages",
    False,
    judge,
    measure=Measure("share in another language", "%"),
)
