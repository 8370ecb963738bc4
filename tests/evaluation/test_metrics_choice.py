"""The metrics that `auto` chooses."""

import pytest

from qwenvl_train.evaluation.metrics.choose import Choice, choose, choose_for_source
from qwenvl_train.evaluation.metrics.table import METRICS

ANIMALS = "What is it?\nA. a cat\nB. a dog"
SENTENCE = "The dog in the middle of the picture runs after a ball that a child has thrown over the fence."


@pytest.mark.parametrize(
    ("expected", "prompt", "metrics"),
    [
        ("B", ANIMALS, "choice"),
        ("a dog", ANIMALS, "choice"),
        ("B. a dog", ANIMALS, "choice"),
        ("B", "Which letter is it?", "exact_match anls"),
        ('<tool_call>\n{"name": "mobile_use", "arguments": {"action": "wait"}}\n</tool_call>', "", "agent_action"),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "a"}]\n```', "", "grounding"),
        ("<|box_start|>(1,2),(3,4)<|box_end|>", "", "grounding"),
        ("12.5 - 17.3", "When does the man open the door?", "temporal"),
        ("00:12.50 - 00:17.30", "", "temporal"),
        ('{"start": 3, "end": 5}', "", "temporal"),
        ('{"00:01.00 - 00:02.50": "adds 2 to 3 eggs"}', "", "temporal"),
        ('<p data-bbox="1 2 3 4">a</p>', "", "page_text layout teds"),
        ("2019 - 2020", "Which seasons?", "exact_match anls"),
        ('{"opens": "10:00 - 12:00", "total": "3"}', "", "fields"),
        ("<table><tr><td>a</td></tr></table>", "", "teds edit_similarity"),
        ("| a |\n|---|\n| b |", "", "teds edit_similarity"),
        ('{"total": "4,500"}', "", "fields"),
        ("14.5 %", "", "number exact_match"),
        ("$42,000", "", "number exact_match"),
        ("A dog.", "", "exact_match anls"),
        ("一只狗", "", "exact_match anls"),
        ("", "", "exact_match anls"),
        (SENTENCE, "", "edit_similarity"),
        ("狗" * 200, "", "edit_similarity"),
        ("<think>\nIs it A?\n</think>\n\n42", "", "number exact_match"),
    ],
)
def test_one_answer(expected, prompt, metrics):
    choice = choose(expected, prompt)
    assert " ".join(choice.metrics) == metrics
    assert set(choice.metrics) <= set(METRICS)
    assert choice.reason.startswith("the expected answer ")


def test_the_reason_is_in_words():
    assert choose("B", ANIMALS).reason == "the expected answer is one of the options in the question"
    assert "no metric here judges meaning" in choose(SENTENCE).reason


def test_a_source_has_the_kind_of_nearly_all_its_answers():
    numbers = [(str(number), "How many?") for number in range(100)]
    assert choose_for_source(numbers) == Choice(
        ("number", "exact_match"), "all 100 answers: the expected answer is a number"
    )
    for few in ([("many", "")] * 10, [(SENTENCE, "")] * 10):
        assert choose_for_source(numbers[:90] + few).reason == "90 % of 100 answers: the expected answer is a number"


def test_otherwise_it_has_the_more_general_kind():
    numbers, options = [("4", "")] * 89, [("B", ANIMALS)] * 11
    assert choose_for_source(numbers + options) == Choice(
        ("exact_match", "anls"),
        "the 100 answers are of several kinds (89 % number, 11 % option), scored as the general one: the expected "
        "answer has at most 15 words",
    )
    assert choose_for_source(numbers + [('{"a": "b"}', "")] * 11).metrics == ("edit_similarity",)
    assert choose_for_source([(SENTENCE, "")]).metrics == ("edit_similarity",)
