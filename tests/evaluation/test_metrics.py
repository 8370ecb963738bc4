"""What holds for every metric: thoughts, sums over samples, empty and broken answers, the user's own metrics."""

import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics import table
from qwenvl_train.evaluation.metrics.metric import Metric, Part, Question, figures
from qwenvl_train.evaluation.metrics.places import places_in
from qwenvl_train.evaluation.metrics.table import METRICS, load_metric
from qwenvl_train.evaluation.metrics.tables import tables_in
from qwenvl_train.families.qwen2_5_vl import FAMILY
from qwenvl_train.families.thoughts import without_thoughts
from tests.evaluation.metric_scores import main, of_source, score

ROOT = Path(__file__).parents[2]
CALL = '<tool_call>\n{"name": "mobile_use", "arguments": {"action": "click", "coordinate": [500, 200]}}\n</tool_call>'
RIGHT = {
    "choice": ("B", "What is it?\nA. a cat\nB. a dog"),
    "number": ("12.5 %", ""),
    "fields": ('{"menu": [{"name": "Käsekuchen", "price": "4,50"}]}', ""),
    "teds": ("<table><tr><td>菜</td><td>2</td></tr></table>", ""),
    "teds_struct": ("<table><tr><td>菜</td><td>2</td></tr></table>", ""),
    "grounding": ('[{"bbox_2d": [1, 2, 30, 40], "label": "猫"}]', ""),
    "layout": ('<p data-bbox="1 2 30 40">猫</p>', ""),
    "temporal": ("00:12.50 - 00:17.30", ""),
    "agent_action": (CALL, ""),
    "agent_action_android_control": (CALL, ""),
    "agent_action_os_atlas": (CALL, ""),
    "agent_action_odyssey": (CALL, ""),
    "screenspot": ("[1, 2, 30, 40]", ""),
}
"""An expected answer and a question for the metrics that need a certain form."""
BROKEN = (
    "",
    " ",
    "{",
    '{"a": ',
    "[[[",
    "<table><tr><td>",
    "<table></table>",
    "| a |\n|---|",
    "<tool_call>{}</tool_call>",
)
BROKEN += ('{"bbox_2d": [1, 2', "1:2:3:4 - 5", "nan", "١٢", "\ud83d", "{" * 5000, "x" * 3000, "(A", "$%", "3 - 1")
BROKEN += (
    '<tool_call>{"name": "f", "arguments": "{"}</tool_call>',
    '{"action": "click", "coordinate": [1]}',
    '{"start": "x"}',
)
BROKEN += (
    "<table><tr><td>\x00",
    f"[1, 2, {'9' * 300}, {'9' * 300}]",
    '{"start": NaN, "end": 1e999}',
    f"{'9' * 400} - 1e999",
)
MANY = "9" * 5000
BROKEN += (
    f'{{"a": {MANY}}}',
    f'{{"a": {MANY}, "b": ',
    f'{{"name": "x", "arguments": "{{\\"a\\": {MANY}}}"}}',
    f'{{"action": "click", "coordinate": [{"9" * 400}, 2]}}',
    f"<tool_call><function=x><parameter=coordinate>[{'9' * 400}, 1]</parameter></function></tool_call>",
    '{"a":' * 700 + "1" + "}" * 700,
    f"\\begin{{tabular}}{{l}}\\multirow{{{MANY}}}{{*}}{{a}}\\end{{tabular}}",
    "<table ",
)
ENDLESS = (
    " ",
    "\n",
    "\\[",
    "|a|\n|" + "-" * 9 + "|-" * 9,
    '"x_2d"' + '\\"' * 20,
    "<table><tr><td>a</td></tr>",
    '<p data-bb="',
)
ENDLESS += ("\\begin{tabular}{l}" + "\\\\[" * 20, "\\begin{tabular}{l}" + "a & b \\\\ ")
"""What a model repeats until its answer is cut, with what comes before."""


@pytest.mark.parametrize("name", METRICS)
def test_the_expected_answer_scores_best_and_an_empty_or_broken_one_does_not(name):
    expected, prompt = RIGHT.get(name, ("Straße 12,\nZürich", ""))
    metric = load_metric(name)
    assert metric.name == name
    best = float(metric.higher_is_better)
    assert set(score(name, expected, expected, prompt=prompt).values()) == {best}
    for answer in BROKEN:
        found = score(name, answer, expected, prompt=prompt, family=FAMILY)
        assert next(iter(found.values())) != best, answer
        assert all(0 <= value <= 1 for value in found.values()) or name in ("cer", "wer", "lines_cer")


@pytest.mark.parametrize("name", METRICS)
def test_a_broken_expected_answer_has_scores_unless_it_has_nothing_to_score(name):
    for expected in BROKEN:
        has_content = {"teds": tables_in, "teds_struct": tables_in, "layout": boxes_in}.get(name, lambda text: True)
        assert bool(score(name, "A dog.", expected)) is bool(has_content(expected)), expected


def boxes_in(text: str) -> list:
    return [place for place in places_in(text, Question()) if not place.is_point]


@pytest.mark.parametrize("text", ENDLESS)
@pytest.mark.parametrize("name", METRICS)
def test_an_answer_without_end_is_scored_in_no_time(name, text):
    expected, prompt = RIGHT.get(name, ("Zürich", ""))
    began = time.process_time()
    score(name, (text[:-8] + text[-8:] * 20000)[:24000], expected, prompt=prompt)
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize("name", METRICS)
def test_thoughts_do_not_count(name):
    expected, prompt = RIGHT.get(name, ("Zürich", ""))
    plain = score(name, expected, expected, prompt=prompt)
    for thoughts in ("<think>\nIs it A?\n</think>\n\n", "Is it [3, 4, 5, 6]?\n</think>\n\n", "<think>\n\n</think>\n\n"):
        assert score(name, thoughts + expected, expected, prompt=prompt) == plain
        assert score(name, expected, thoughts + expected, prompt=prompt) == plain


def test_thoughts_without_an_end_leave_nothing():
    assert without_thoughts("<think>\nIt could be A or") == ""
    assert without_thoughts("A <think> tag") == "A <think> tag"


def test_the_figure_of_a_source_is_a_ratio_of_sums():
    """So that any sample of samples has a figure: a mean, or a rate of the whole source."""
    assert of_source("exact_match", [("a", "a"), ("a", "b"), ("c", "c")]) == {"exact_match": pytest.approx(2 / 3)}
    assert of_source("wer", [("one", "one"), ("a b c", "x y z")]) == {"wer": pytest.approx(3 / 4)}
    assert figures([{"a": Part(1, 2)}, {"a": Part(1, 2), "b": Part(1)}]) == {"a": 0.5, "b": 1}
    assert figures([]) == {}


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "qwenvl_train.evaluation.metrics.error_rates", raising=False)
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(UserError, match=r"The metric wer needs jiwer: pip install 'qwenvl-train\[eval\]'\."):
        load_metric("wer")


def test_the_extra_has_the_packages_that_are_named_and_their_versions_are_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [Requirement(one).name for one in project["optional-dependencies"]["eval"]] == list(table.EXTRA)
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    assert set(table.EXTRA) <= pinned


def test_an_unknown_name_is_an_error_with_a_suggestion():
    with pytest.raises(UserError, match=r"no metric exact_macth; did you mean exact_match\?"):
        load_metric("exact_macth")
    with pytest.raises(UserError, match=r"it is one of exact_match, .* or your own as package\.function"):
        load_metric("bleu")


OWN = '''
from qwenvl_train.evaluation.metrics.metric import Metric, Part

def first_word(answer, expected, question):
    """the first words are the same"""
    return answer.split()[:1] == expected.split()[:1]

def two(answer, expected, question):
    return {"length": Part(len(answer), len(expected)), "asked": float("?" in question.prompt)}

def nothing(answer, expected, question):
    return "good"

NUMBER = 3
ERRORS = Metric("errors", "my own", lambda answer, expected, question: 1.0, higher_is_better=False)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_metric.py").write_text(OWN)
    (tmp_path / "broken_metric.py").write_text("import there_is_no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_metric"
    sys.modules.pop("own_metric", None)


def test_own_metrics(own):
    metric = load_metric(f"{own}.first_word")
    assert (metric.name, metric.convention) == ("first_word", "the first words are the same")
    assert metric.score("<think>no</think>a b", "a c") == {"first_word": Part(1.0)}
    assert load_metric(f"{own}.two").score("ab", "abcd", Question(prompt="?")) == {
        "length": Part(2, 4),
        "asked": Part(1.0),
    }
    errors = load_metric(f"{own}.ERRORS")
    assert isinstance(errors, Metric)
    assert not errors.higher_is_better


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.metric", "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("own_metric.third", "cannot be imported: .*third"),
        ("broken_metric.score", "cannot be imported: ModuleNotFoundError: No module named 'there_is_no_such_module'"),
        ("own_metric.NUMBER", r"is a int; it must be a function of \(answer, expected, question\), or a Metric\."),
    ],
)
def test_an_own_metric_that_cannot_be_used_is_an_error(own, name, message):
    with pytest.raises(UserError, match=message):
        load_metric(name)


def test_an_own_metric_must_return_numbers(own):
    with pytest.raises(UserError, match="The metric nothing returned str; it must return a number, or a mapping"):
        load_metric(f"{own}.nothing").score("a", "b")


def test_accepted_answers_count_as_the_expected_one():
    for name in ("exact_match", "contains", "anls", "edit_similarity", "number", "choice"):
        assert main(name, "4", "5", accepted=("six", "4")) == 1
    assert main("cer", "four", "five", accepted=("four",)) == 0
    assert main("wer", "four", "five", accepted=("four",)) == 0
