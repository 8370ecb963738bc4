"""Answers in a language that the training is not for."""

from typing import Annotated

from pydantic import AfterValidator, PositiveFloat, PositiveInt
from pydantic_core import PydanticCustomError

from qwenvl_train.config.section import NameList
from qwenvl_train.curation.forms import form_of
from qwenvl_train.curation.languages import LANGUAGES, languages_of
from qwenvl_train.curation.questions import asks_for_given_text
from qwenvl_train.curation.rules.rule import Measure, Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict, quoted
from qwenvl_train.curation.view import AnswerView, RowView


def _known(codes: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [code for code in codes if code not in LANGUAGES]:
        raise PydanticCustomError(
            "languages",
            "{text}",
            {
                "text": f"{unknown[0]} is no code of a language; codes are those of ISO 639, such as "
                "en, zh, de, fr, es, ja, ko, ru and ar"
            },
        )
    return codes


class Language(RuleSection):
    languages: Annotated[NameList, AfterValidator(_known)] | None
    """ISO 639 codes of the languages that answers may have, such as [en, zh]. With null, the rule is not applied."""
    min_words: PositiveInt
    """Answers with fewer words are not judged."""
    min_confidence: PositiveFloat
    """The probability of another language from which on a row falls."""


def judge(row: RowView, settings: Language) -> Verdict | None:
    if settings.languages is None:
        return None
    passages = [answer.passage for answer in row.answers if _is_judged(answer)]
    texts = [passage.own_words for passage in passages if len(passage.words) >= settings.min_words]
    if not texts:
        return None
    found = [(*_other(languages_of(text.strip(), 3), settings.languages), text) for text in texts]
    probability, code, text = max(found)
    falls = probability >= settings.min_confidence
    return Verdict(falls, probability, f"it is in {code}: {quoted(text)}" if falls else "")


def _is_judged(answer: AnswerView) -> bool:
    # Text that is read from a picture has the language of the picture.
    return form_of(answer.text) == "prose" and not asks_for_given_text(answer.question)


def _other(found: dict[str, float], wanted: tuple[str, ...]) -> tuple[float, str]:
    """Return the probability and the code of the likeliest language that is not wanted."""
    others = [(probability, code) for code, probability in found.items() if code not in wanted]
    return max(others, default=(0.0, ""))


RULE = Rule(
    "language", "answers in other languages", False, judge, measure=Measure("probability of another language", "%")
)
