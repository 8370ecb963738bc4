"""The judgement of drawn answers: their scores against the truth, and their faults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qwenvl_train.curation.rules.table import RULES
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.render.tokens import has_control_tokens
from qwenvl_train.data.sample import Sample, Text, Turn
from qwenvl_train.evaluation.answering import Row
from qwenvl_train.evaluation.metrics.metric import Metric
from qwenvl_train.evaluation.scoring import Chosen, ScoredRow, choose_metrics, load_metrics, metrics_of_entries, score
from qwenvl_train.families.thoughts import without_thoughts
from qwenvl_train.verbs.sample.answers import DrawnAnswers
from qwenvl_train.verbs.sample.policies import Candidate
from qwenvl_train.verbs.sample.settings import SampleSection


@dataclass(frozen=True)
class Judged:
    """A question with its answers."""

    sample: Sample
    """The conversation up to the true answer, which is its only trained turn."""
    turn: int
    turns: int
    """Number of questions of the raw row, and which of them this is, counted from 1."""
    rows: list[Row]
    """The answers as answers.jsonl has them."""
    tries: list[Candidate]
    """The same answers as policies see them."""

    def seed_of(self, one: Candidate) -> int | None:
        return next(row["seed"] for row in self.rows if row["try"] == one.number)


def judge(drawn: DrawnAnswers) -> tuple[list[Judged], dict[str, Chosen]]:
    """Return all questions with their judged answers, and the metrics of each entry of data.train."""
    config = drawn.config
    asked = [row for row in drawn.rows if row["try"] == 1]
    chosen = choose_metrics(asked, config.eval.metrics, metrics_of_entries(config.data, "data.train"))
    metrics = load_metrics(chosen)
    scored = score(drawn.rows, chosen, metrics, drawn.family)
    tries = config.sample.tries
    questions = (scored[start : start + tries] for start in range(0, len(scored), tries))
    return [_judged(mine, metrics, drawn) for mine in questions], chosen


def _judged(scored: Sequence[ScoredRow], metrics: Mapping[str, Metric], drawn: DrawnAnswers) -> Judged:
    section, first = drawn.config.sample, scored[0].row
    sample = drawn.samples.samples[first["index"]].up_to_answer(first["turn"])
    rows, tries = [], []
    for one in scored:
        value = goodness(one, metrics)
        faults, marks = _faults(sample, one.row, section)
        text = one.row["answer"]
        complete = one.row["ended"] and bool(without_thoughts(text).strip()) and not has_control_tokens(text)
        judgement = {"score": value, "right": value >= section.right, "faults": faults, "marks": marks}
        rows.append({**one.row, "scores": one.plain(), **judgement})
        tries.append(_try(rows[-1], complete, section))
    return Judged(sample, first["turn"], first["turns"], rows, tries)


def _try(row: Row, complete: bool, section: SampleSection) -> Candidate:
    text = row["answer"] if section.thoughts == "keep" else without_thoughts(row["answer"])
    length = len(text) if row["tokens"] is None else row["tokens"]
    return Candidate(row["try"], text, row["score"], row["right"], tuple(row["faults"]), complete, length)


def goodness(one: ScoredRow, metrics: Mapping[str, Metric]) -> float:
    """Return the main score of an answer, that of the first metric. If lower is better, it is 1 less the score."""
    name, parts = next(iter(one.scores.items()))
    value = next(iter(parts.values())).value
    return round(value if metrics[name].higher_is_better else 1 - value, 6)


def _faults(sample: Sample, row: Row, section: SampleSection) -> tuple[list[str], list[str]]:
    """Return why an answer is not to be learned, and what is only marked in it, in words."""
    text, faults = row["answer"], []
    if not row["ended"]:
        faults.append(f"cut at {section.max_new_tokens} tokens")
    if not without_thoughts(text).strip():
        faults.append("thoughts without an answer" if text.strip() else "an empty answer")
    if has_control_tokens(text):
        faults.append("control tokens in the text")
    found = _fallen(sample, text, section.rules) if text.strip() else {"drop": [], "mark": []}
    return faults + found["drop"], found["mark"]


def _fallen(sample: Sample, text: str, rules: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the rules that an answer falls to, each with its evidence, by their use."""
    view = RowView(answered(sample, text))
    found: dict[str, list[str]] = {"drop": [], "mark": []}
    for name, settings in rules.items():
        if settings.use != "off" and (verdict := RULES[name].judge(view, settings)) and verdict.falls:
            found[settings.use].append(f"{name}: {verdict.evidence}")
    return found


def answered(sample: Sample, text: str) -> Sample:
    """Return the conversation with this answer in place of the true one."""
    return replace(sample, turns=(*sample.turns[:-1], Turn("assistant", (Text(text),), train=True)))
