"""The similarity of the texts of pages, and the wrong characters of lines."""

from rapidfuzz.distance import Levenshtein

from qwenvl_train.evaluation.metrics.error_rates import cer
from qwenvl_train.evaluation.metrics.metric import Metric, Part, Question
from qwenvl_train.evaluation.metrics.pages import letters, listed_text, text_of_page


def page_text(answer: str, expected: str, question: Question) -> float:
    given, *right = (letters(text_of_page(one)) for one in (answer, *question.answers(expected)))
    return max(Levenshtein.normalized_similarity(given, one) for one in right)


def lines_cer(answer: str, expected: str, question: Question) -> dict[str, Part]:
    given, wanted, *accepted = (listed_text(text) or text for text in (answer, expected, *question.accepted))
    rate = cer(given, wanted, Question(accepted=tuple(accepted)))
    return {"lines_cer": rate["cer"]}


PAGE_TEXT = Metric(
    "page_text",
    "1 - edit distance / longer length of the letters and digits of the page, without tables and formulas. "
    "OmniDocBench matches the blocks of a page before it compares them; here the whole page is compared in its order. "
    "Mean over pages",
    page_text,
)
LINES_CER = Metric(
    "lines_cer",
    "jiwer's character error rate of the texts that an answer lists with boxes, in its order, or else of the answer, "
    "over all samples together; lower is better and it can exceed 1",
    lines_cer,
    higher_is_better=False,
)
