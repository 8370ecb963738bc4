"""The metrics of texts, beside published examples and the outputs of their reference implementations."""

import json

import pytest

from qwenvl_train.evaluation.metrics.choice import options_in
from tests.evaluation.metric_scores import main, of_source, score


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("A Cat.", "a  cat", True),
        ("ﬁn", "fin", True),  # NFKC: a ligature
        ("１２", "12", True),  # NFKC: wide digits
        ("STRASSE", "straße", True),
        ("猫。", "猫", True),
        ("3.5", "35", False),
        ("a cat!", "a cat", False),
        ("", "", True),
    ],
)
def test_exact_match(answer, expected, right):
    assert main("exact_match", answer, expected) == right


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("It says CENTRE.", "centre", True),
        ("It says\nnew  york", "New York", True),
        ("cent", "centre", False),
        ("anything", "", False),
    ],
)
def test_contains(answer, expected, right):
    assert main("contains", answer, expected) == right


PAPER = {"The Coca": (0.44, 0.29), "CocaCola": (0.89, 0.47), "Coca cola": (1.0, 0.53), "Cola": (0.44, 0.23)}
PAPER["Cat"] = (0.22, 0.12)


@pytest.mark.parametrize(("answer", "similarities"), PAPER.items())
def test_anls_of_the_example_of_the_anls_package(answer, similarities):
    """github.com/shunk031/ANLS, tests/metrics: similarities to "Coca Cola" and to "Coca Cola Company" before the
    threshold. In 1,006 random pairs with up to three accepted answers, empty texts and Unicode, anls-star 1.0.1 gave
    the same scores as ours to 1e-12."""
    for expected, similarity in zip(("Coca Cola", "Coca Cola Company"), similarities, strict=True):
        assert main("anls", answer, expected) == pytest.approx(similarity if similarity >= 0.5 else 0, abs=0.005)
        assert main("edit_similarity", answer.lower(), expected.lower()) == pytest.approx(similarity, abs=0.006)
    best = max(similarities)
    found = main("anls", answer, "Coca Cola Company", accepted=("Coca Cola",))
    assert found == pytest.approx(best if best >= 0.5 else 0, abs=0.005)


def test_anls_keeps_a_similarity_of_one_half():
    """As DocVQA's and anls-star's code do, which set a similarity *below* 0.5 to 0. The paper drops 0.5, too."""
    assert main("anls", "ab", "abcd") == 0.5
    assert main("anls", "ab", "abcde") == 0


def test_anls_of_the_readme_of_anls_star():
    assert main("anls", "Hello Wrld", "Hello World") == pytest.approx(10 / 11)


def test_edit_similarity_is_one_less_the_distance_by_the_longer_length():
    """kitten and sitting have the distance 3, the usual example."""
    assert main("edit_similarity", "kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert main("edit_similarity", "", "") == 1
    assert main("edit_similarity", "価格は100円", "価格は120円") == pytest.approx(1 - 1 / 7)


def test_error_rates_are_those_of_jiwers_documentation():
    """jitsi.github.io/jiwer/usage: two sentences each."""
    words = [("hello duck", "hello world"), ("i like python", "i like monthy python")]
    assert of_source("wer", words[:1]) == {"wer": 0.5}
    assert of_source("wer", words) == {"wer": pytest.approx(2 / 6)}
    characters = [("i kan cpell", "i can spell"), ("i hop", "i hope")]
    assert of_source("cer", characters) == {"cer": pytest.approx(3 / 17)}


def test_error_rates_of_empty_answers():
    """The numbers that jiwer 4.0 returns for these, and that its rates of sentences together would have."""
    assert [main("cer", *pair) for pair in (("", "abc"), ("", ""), ("abc def", ""))] == [1, 0, 7]
    assert [main("wer", *pair) for pair in (("", "abc"), ("", ""), ("abc def", ""))] == [1, 0, 2]
    assert of_source("cer", [("ab", ""), ("abcd", "abcd")]) == {"cer": 0.5}


RELAXED = [
    ("245", "245", True),
    ("245", "245.0", True),
    ("245", "260", False),
    ("100", "104", True),
    ("100", "106", False),
    ("Nigeria", "Nigeria", True),
    ("Nigeria", "nigeria", True),
    ("Nigeria", "Egypt", False),
    ("81.9%", "0.819", True),
    ("81.9%", "81.9", False),
    ("-10", "-10.4", True),
    ("10", "ten", False),
]


@pytest.mark.parametrize(("expected", "answer", "right"), RELAXED)
def test_number_is_chartqas_relaxed_accuracy(expected, answer, right):
    """Pix2Struct's relaxed_correctness, as lmms-eval and Qwen-VL use it. In 3,000 random pairs, theirs and ours
    differed in 2: theirs says that 0.000 is not 0."""
    assert main("number", answer, expected) == right


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("0", "0.0", True),
        ("0", "0.01", False),
        ("$42,000", "42000", True),
        ("1,234.5", "1234.5", True),
        ("1,2", "12", False),
        ("−5 %", "-5%", True),
        ("", "", True),
        ("5", "", False),
        ("5", "nan", False),
        (".", "-", False),
    ],
)
def test_number_beyond_chartqa(expected, answer, right):
    assert main("number", answer, expected) == right


LISTED = "Which one?\nA. First option\nB. Second option\nC. Third option\nD. Fourth option"
ANIMALS = "What is it? Options: (A) cat (B) dog (C) bird"


@pytest.mark.parametrize(
    ("prompt", "answer", "letter"),
    [
        # lmms-eval's tests of parse_multi_choice_response.
        (LISTED, "The answer is (B).", "B"),
        (LISTED, "I choose C", "C"),
        (LISTED, "Final answer: A.", "A"),
        (ANIMALS, "In my opinion, it is the dog indeed.", "B"),
        (LISTED, "A B A", "A"),
        # llama-verifications' tests of its MMMU grader.
        (LISTED, "After analyzing the problem, I believe the answer is (A) because it represents the approach.", "A"),
        (LISTED, "The answer to this question is (B) because of the following reasons...", "B"),
        (LISTED, "Based on my calculations, the answer is the First option.", "A"),
        (LISTED, "The solution requires careful consideration of all factors.", None),
        (LISTED, "To solve this:\nFirst, let's see...\nTherefore, my answer is (A).", "A"),
        (LISTED, "Answer A could be correct if...\nAnswer B might be if...\nMy final answer is (B).", "B"),
        (LISTED, "The correct option is (D).", "D"),
        (LISTED, "The answer depends on several factors...\nI'm not sure which option is correct.", None),
        # Forms that MMMU's parser does not read, or takes for another letter.
        (ANIMALS, "b", "B"),
        (ANIMALS, "B. dog", "B"),
        (ANIMALS, "**Answer:** B", "B"),
        (ANIMALS, "\\boxed{C}", "C"),
        (ANIMALS, "答案是B", "B"),
        (ANIMALS, "A dog sits on the mat", "B"),
        (ANIMALS, "I do not know", None),
        (ANIMALS, "The answer is A because a cat", "A"),
        ("Which?\nA. Vitamin B\nB. Vitamin C\nC. hot dog\nD. dog", "Vitamin C", "B"),
        ("Which?\nA. Vitamin B\nB. Vitamin C\nC. hot dog\nD. dog", "It must be vitamin c!", "B"),
        ("Which?\nA. Vitamin B\nB. Vitamin C\nC. hot dog\nD. dog", "Surely it is the hot dog.", "C"),
        ("Which letter?", "(C)", "C"),
        (ANIMALS, "", None),
    ],
)
def test_choice(prompt, answer, letter):
    letters = [one for one in "ABCD" if main("choice", answer, one, prompt=prompt)]
    assert letters == ([letter] if letter else [])


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        (ANIMALS, {"A": "cat", "B": "dog", "C": "bird"}),
        (f"{ANIMALS}\nAnswer with (A) or (B).", {"A": "cat", "B": "dog", "C": "bird"}),
        ("Which?\nA: Zürich\nB: Bern\n\nAnswer with the letter.", {"A": "Zürich", "B": "Bern"}),
        ("Is J. R. R. Tolkien the author?", {}),
        (" ".join(f"{chr(65 + index % 26)}." for index in range(30)), {chr(65 + index): "" for index in range(26)}),
        ("", {}),
    ],
)
def test_the_options_of_a_question(prompt, options):
    assert options_in(prompt) == options


def test_the_expected_choice_can_be_the_text_of_an_option():
    assert main("choice", "(B)", "dog", prompt=ANIMALS) == 1
    assert main("choice", "bird", "dog", prompt=ANIMALS) == 0
    assert main("choice", "(B)", "B. dog", prompt=ANIMALS) == 1


RECEIPT = {"menu": [{"name": "cake", "count": "2"}, {"name": "juice", "count": "1"}]}


def test_fields_are_those_of_donuts_example():
    """github.com/clovaai/donut, JSONParseEvaluator: the example of `flatten` has four fields. On 500 random pairs of
    trees, its cal_f1 and ours gave the same F1, for each pair and for all together (0.6946)."""
    answer = {"menu": [{"name": "juice", "count": "1"}, {"name": "cake", "count": "3"}]}
    found = score("fields", f"```json\n{json.dumps(answer)}\n```", json.dumps(RECEIPT))
    # Three fields are right, one is missing, one is too many.
    assert found == {"f1": 6 / 8, "accuracy": 3 / 4, "all_right": 0, "valid_json": 1}


def test_f1_of_fields_is_micro():
    pairs = [('{"a": "1"}', '{"a": "1"}'), ("{}", '{"a": "1", "b": "2", "c": "3"}')]
    assert of_source("fields", pairs)["f1"] == pytest.approx(2 / (2 + 3))


def test_broken_json_is_read_but_not_all_right():
    broken = '{"a": "x'
    assert score("fields", broken + '", ', '{"a": "x"}') == {"f1": 1, "accuracy": 1, "all_right": 0, "valid_json": 0}


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ('{"total": 0}', '{"total": "0"}', 1),  # Donut leaves out a zero
        ('{"total": null, "tax": ""}', "{}", 1),
        ('{"a": {"b": "x"}}', '{"a.b": "x"}', 1),
        ('{"a": ["x", "x"]}', '{"a": ["x"]}', 2 / 3),
        ('{"名": "ｶﾌｪ"}', '{"名": "カフェ"}', 1),
        ('{"a": "X"}', '{"a": "x"}', 0),
        ('{"menu": [{"a": "x"}, {"a": ', '{"a": "x"}', 0),  # not the object inside
        ("{'a': 'it is \\'x\\' or \"y\"', }", """{"a": "it is 'x' or \\"y\\""}""", 1),
        ('{"a": "x" "b": True, c: 1.50}', '{"a": "x", "b": true, "c": 1.5}', 1),
        ('{"a": "x", "b": "y', '{"a": "x", "b": "yes"}', 2 / 3),  # without the value that is cut off
        ('{"a": 1, "b": 12', '{"a": 1, "b": 12}', 2 / 3),
        ('{"a": ["x", {"b"', '{"a": "x"}', 1),
        ('{"a": "x", :', '{"a": "x"}', 1),
        ("[" * 100_000, "{}", 1),
        ("", '{"a": "x"}', 0),
    ],
)
def test_fields(answer, expected, f1):
    assert main("fields", answer, expected) == pytest.approx(f1)
