"""The figures of sources, their intervals and the comparison of two models, beside values computed by other means."""

import math
from itertools import product

import numpy as np
import pytest

from qwenvl_train.evaluation.metrics.metric import Metric, Part
from qwenvl_train.evaluation.scoring import Chosen, Parts, ScoredRow, choose_metrics, figures_of, load_metrics, score
from qwenvl_train.families import FAMILIES


def row(index: int, expected: str = "red", answer: str = "red", entry: str = "a.jsonl", **more) -> dict:
    return {"index": index, "entry": entry, "expected": expected, "answer": answer, "prompt": "Which?", **more}


def parts(values: list[float], weights: list[float] | None = None) -> Parts:
    return Parts(dict(enumerate(zip(values, weights or [1.0] * len(values), strict=True))))


def test_the_interval_of_a_mean_is_that_of_its_normal_approximation():
    found = parts([2.0] * 300 + [0.0] * 100, [2.0] * 400)
    low, high = found.interval(seed=0)
    spread = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    # The worst of ten seeds was off by 0.004.
    assert (low, high) == pytest.approx((0.75 - spread, 0.75 + spread), abs=0.008)
    assert found.interval(seed=0) == (low, high) != found.interval(seed=1)


def test_the_interval_of_a_share_has_a_width_if_all_samples_are_right():
    """The values are those of scipy's binomtest(…).proportion_ci(method="wilson")."""
    assert parts([1.0] * 5 + [0.0] * 5).interval(seed=0) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    assert parts([0.0] * 20).interval(seed=0) == pytest.approx((0.0, 0.161125), abs=1e-6)
    assert parts([1.0] * 5).interval(seed=0) == pytest.approx((0.565518, 1.0), abs=1e-6)


def test_a_figure_is_the_sum_of_numerators_over_that_of_denominators():
    assert parts([1, 3, 0], [2, 10, 4]).value() == 4 / 16
    assert parts([0, 0], [0, 0]).value() == 0


def test_the_probability_is_that_of_all_exchanges():
    mine, theirs = [0, 0, 1, 0, 0, 1, 0, 0], [1, 1, 1, 0, 1, 1, 1, 0]
    gaps = np.array(theirs) - np.array(mine)
    signs = np.array(list(product((-1, 1), repeat=len(gaps))))
    exact = (np.abs((signs * gaps).sum(1)) >= abs(gaps.sum())).mean()
    found = parts(mine).compared_with(parts(theirs), seed=0)
    assert found.difference == 0.5
    assert found.probability == pytest.approx(exact, abs=0.03)  # exactly 0.125
    assert found.low > 0
    assert found.samples == 8
    alike = parts(mine).compared_with(parts(mine), seed=0)
    assert (alike.difference, alike.low, alike.high, alike.probability) == (0, 0, 0, 1)


def test_models_are_compared_on_the_samples_that_both_have_answered():
    mine, theirs = Parts({0: (1, 1), 1: (1, 1), 2: (0, 1)}), Parts({1: (0, 1), 2: (0, 1), 3: (1, 1)})
    found = mine.compared_with(theirs, seed=0)
    assert (found.samples, found.difference) == (2, -0.5)


def test_answers_of_one_sample_stay_together():
    """Ten answers of each of four samples, equal within a sample, tell as little as one answer of each."""
    scored = [
        ScoredRow({"index": index, "entry": "a"}, {"m": {"m": Part(float(index % 2))}})
        for index in range(4)
        for _ in range(10)
    ]
    one = Parts.of(scored, "m", "m")
    assert (one.samples, one.value()) == (4, 0.5)
    low, high = one.interval(seed=0)
    assert (low, high) == (0, 1)


def test_metrics_come_from_rows_then_entries_then_the_form_of_the_answers():
    rows = [
        row(0, metrics=["contains"]), row(1, metrics=["contains"]),
        row(2, "12", entry="b.jsonl"), row(3, "13", entry="b.jsonl"),
        row(4, entry="c.jsonl"),
    ]  # fmt: skip
    chosen = choose_metrics(rows, ("auto",), {"c.jsonl": ("wer",)})
    assert {entry: one.metrics for entry, one in chosen.items()} == {
        "a.jsonl": ("contains",), "b.jsonl": ("number", "exact_match"), "c.jsonl": ("wer",)
    }  # fmt: skip
    assert "2 answers: the expected answer is a number" in chosen["b.jsonl"].reason
    both = choose_metrics(rows, ("auto", "cer"), {})
    assert both["a.jsonl"].metrics == ("contains", "cer")
    only = choose_metrics(rows, ("cer",), {"c.jsonl": ("wer",)})
    assert {one.metrics for one in only.values()} == {("cer",)}


def test_sources_with_a_metric_in_common_have_a_figure_together():
    rows = [row(0), row(1, answer="blue"), row(2, entry="b.jsonl"), row(3, entry="c.jsonl")]
    chosen = {
        "a.jsonl": Chosen(("exact_match",), ""),
        "b.jsonl": Chosen(("exact_match",), ""),
        "c.jsonl": Chosen(("wer",), ""),
    }
    metrics = load_metrics(chosen)
    scored = score(rows, chosen, metrics, FAMILIES["qwen2_vl"])
    found = {(one.entry, one.metric): one.value for one in figures_of(scored, metrics, seed=0)}
    assert found == {
        ("a.jsonl", "exact_match"): 0.5, ("b.jsonl", "exact_match"): 1.0, ("c.jsonl", "wer"): 0.0,
        ("all", "exact_match"): pytest.approx(2 / 3),
    }  # fmt: skip


def test_a_metric_reads_accepted_answers_and_the_size_of_the_picture():
    seen = []

    def noting(answer, expected, question):
        seen.append(question)
        return 1.0

    rows = [row(0, accepted=["scarlet"], picture={"original": [60, 120], "resized": [56, 112]})]
    score(rows, {"a.jsonl": Chosen(("m",), "")}, {"m": Metric("m", "", noting)}, FAMILIES["qwen3_vl"])
    (question,) = seen
    assert question.answers("red") == ("red", "scarlet")
    assert question.picture.resized == (56, 112)
    assert question.family is FAMILIES["qwen3_vl"]


def test_an_answer_is_right_if_its_first_metric_gives_the_best_score():
    """A metric of the user's own has no known best score."""
    rows = [row(0, answer="[1, 2]")]

    def right(value, name="m", **more):
        metric = Metric(name, "", lambda answer, expected, question: value, **more)
        other = Metric("other", "", lambda answer, expected, question: 0.5)
        chosen = {"a.jsonl": Chosen((name, "other"), "")}
        (scored,) = score(rows, chosen, {name: metric, "other": other}, FAMILIES["qwen3_vl"])
        return scored.right

    assert [right(value) for value in (1.0, Part(3, 3), 0.99, 0.0)] == [True, True, False, False]
    assert [right(value, higher_is_better=False) for value in (0.0, 0.01, 1.0)] == [True, False, False]
    assert right(1.0, "mine.metric") is None


def test_an_answer_that_a_metric_cannot_read_counts_as_an_empty_one():
    def fragile(answer, expected, question):
        return 1 / len(answer.replace("x", "")) if answer else 0.25

    broken, of_user = [row(0, answer="xx")], {"a.jsonl": Chosen(("mine.fragile",), "")}
    metric, family = Metric("fragile", "", fragile), FAMILIES["qwen3_vl"]
    (scored,) = score(broken, {"a.jsonl": Chosen(("fragile",), "")}, {"fragile": metric}, family)
    assert scored.figures() == {"fragile": 0.25}
    with pytest.raises(ZeroDivisionError):
        score(broken, of_user, {"mine.fragile": metric}, family)


def test_what_a_metric_has_nothing_to_score_in_does_not_count():
    """The first page has a table, the second has none, and the third is of another source without any."""
    table = '<table data-bbox="1 2 30 40"><tr><td>a</td></tr></table>'
    rows = [row(0, table, table), row(1, "<p>b</p>", "c"), row(2, "<p>d</p>", "<p>d</p>", entry="b.jsonl")]
    chosen = choose_metrics(rows, ["layout", "teds", "page_text"], {})
    metrics = load_metrics(chosen)
    scored = score(rows, chosen, metrics, FAMILIES["qwen3_vl"])
    assert [one.main and one.main.metric for one in scored] == ["layout", "page_text", "page_text"]
    assert [one.right for one in scored] == [True, False, True]
    found = {(one.entry, one.metric, one.name): (one.value, one.samples) for one in figures_of(scored, metrics, 0)}
    assert found["a.jsonl", "teds", "teds"] == found["a.jsonl", "layout", "f1@0.5"] == (1, 1)
    assert found["a.jsonl", "page_text", "page_text"] == (0.5, 2)
    assert not any(entry == "b.jsonl" and metric != "page_text" for entry, metric, _ in found)
    (alone,) = score(rows[1:2], {"a.jsonl": Chosen(("teds",), "")}, metrics, FAMILIES["qwen3_vl"])
    assert (alone.main, alone.right, alone.figures()) == (None, None, {})


def test_models_are_compared_by_what_counts_for_one_of_them():
    """No page has a table. The second model invents one on the second page, and has not answered the third."""
    page, table = "<p>a</p>", "<table><tr><td>a</td></tr></table>"
    metrics = load_metrics({"a.jsonl": Chosen(("teds",), "")})

    def of(*answers: str) -> Parts:
        rows = [row(index, page, answer) for index, answer in enumerate(answers)]
        return Parts.of(score(rows, {"a.jsonl": Chosen(("teds",), "")}, metrics, FAMILIES["qwen3_vl"]), "teds", "teds")

    first, second = of(page, page, table), of(page, table)
    assert (first.samples, second.samples) == (1, 1)
    found = first.compared_with(second, seed=0)
    assert (found.samples, found.difference) == (1, 0)
    right = Parts({0: (1, 1)}, answered=[0, 1])
    found = right.compared_with(Parts({0: (1, 1), 1: (0, 1)}), seed=0)
    assert (found.samples, found.difference) == (2, -0.5)
