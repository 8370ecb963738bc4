"""The judgement of drawn answers: their scores against the truth, and their faults."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

from qwenvl_train.curation.rules.table import RULES
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.render.tokens import has_control_tokens
from qwenvl_train.data.sample import Sample, Text, Turn
from qwenvl_train.evaluation.answering import Row
from qwenvl_train.evaluation.metrics.metric import Metric
from qwenvl_train.evaluation.scoring import Chosen, ScoredRow, choose_metrics, load_metrics, metrics_of_entries, score
from qwenvl_train.families.thoughts import without_thoughts
from qwenvl_train.reporting.bar import counting
from qwenvl_train.verbs.sample.answers import DrawnAnswers
from qwenvl_train.verbs.sample.policies import Candidate
from qwenvl_train.verbs.sample.settings import CheckThoughts, SampleSection
from qwenvl_train.verbs.sample.thoughts import ThoughtsJudge, has_thoughts_about_media, open_thoughts_judge

_AT_A_TIME = 32
"""The number of questions that are held while they are judged, so that a model judges several thoughts together."""
USE = "thoughts_use_image"
"""The key of the probability in rows of answers.jsonl."""
NOT_JUDGED = "check_thoughts could not judge"
"""The beginning of the mark of answers that the model could not judge."""


@dataclass(frozen=True)
class Judged:
    """A question with its answers."""

    sample: Sample
    """The conversation up to the true answer, which is its only trained turn."""
    rows: list[Row]
    """The answers as answers.jsonl has them."""
    tries: list[Candidate]
    """The same answers as policies see them."""

    @property
    def turn(self) -> int:
        """Which of the questions of the raw row this is, counted from 1."""
        return self.rows[0]["turn"]

    @property
    def turns(self) -> int:
        """The number of questions of the raw row."""
        return self.rows[0]["turns"]

    def seed_of(self, one: Candidate) -> int | None:
        return next(row["seed"] for row in self.rows if row["try"] == one.number)


class _Question(NamedTuple):
    """A question with its answers, while they are judged."""

    sample: Sample
    rows: list[Row]


def judge(drawn: DrawnAnswers) -> tuple[Iterator[Judged], dict[str, Chosen]]:
    """Return all questions with their judged answers, and the metrics of each entry of data.train. The answers are read
    and judged a few at a time."""
    config = drawn.config
    asked = [_asked(row) for rows in drawn.answers for row in rows if row["try"] == 1]
    chosen = choose_metrics(asked, config.eval.metrics, metrics_of_entries(config.data, "data.train"))
    return _judged(drawn, chosen), chosen


def _asked(row: Row) -> Row:
    """Return what metrics are chosen by. The questions of all rows are held at a time, and their answers are not."""
    return {key: row[key] for key in ("entry", "expected", "prompt", "metrics") if key in row}


def _judged(drawn: DrawnAnswers, chosen: Mapping[str, Chosen]) -> Iterator[Judged]:
    section, metrics = drawn.config.sample, load_metrics(chosen)
    thoughts = open_thoughts_judge(drawn.context)
    tries = section.tries
    of_questions = (rows[start : start + tries] for rows in drawn.answers for start in range(0, len(rows), tries))
    questions = (_question(rows, chosen, metrics, drawn) for rows in of_questions)
    with counting("judging", len(drawn.answers) // tries) as progress:
        done = 0
        while some := list(islice(questions, _AT_A_TIME)):
            if thoughts is not None:
                check_thoughts(some, thoughts, section.check_thoughts)
            for one in some:
                yield Judged(one.sample, one.rows, [_try(row, section) for row in one.rows])
            progress(done := done + len(some))


def _question(
    rows: Sequence[Row], chosen: Mapping[str, Chosen], metrics: Mapping[str, Metric], drawn: DrawnAnswers
) -> _Question:
    section, first = drawn.config.sample, rows[0]
    sample = drawn.samples.samples[first["index"]].up_to_answer(first["turn"])
    judged = []
    for one in score(rows, chosen, metrics, drawn.family):
        value = goodness(one, metrics)
        faults, marks = _faults(sample, one.row, section)
        if one.main is None:
            faults.append("nothing to score by its metrics")
        judgement = {"score": value, "right": value >= section.right, "faults": faults, "marks": marks}
        row = {key: content for key, content in one.row.items() if key != USE}
        judged.append({**row, "scores": one.plain(), **judgement})
    return _Question(sample, judged)


def check_thoughts(
    questions: Sequence[tuple[Sample, list[Row]]], judge: ThoughtsJudge, settings: CheckThoughts
) -> None:
    """Have a model judge the answers that are right and without faults, and whose thoughts may use an image. Those that
    do not are a fault or a mark of their row."""
    asked = [
        (row, conversation)
        for sample, rows in questions
        for row in rows
        if row["right"] and not row["faults"]
        if has_thoughts_about_media(conversation := answered(sample, row["answer"]))
    ]
    found = judge.probabilities([conversation for _, conversation in asked])
    for (row, _), probability in zip(asked, found, strict=True):
        if isinstance(probability, str):
            row["marks"].append(f"{NOT_JUDGED}: {probability}")
            continue
        row[USE] = round(probability, 6)
        if probability < settings.min_probability:
            words = f"check_thoughts: the probability that the thoughts use the image is {probability:.1%}"
            row["faults" if settings.use == "drop" else "marks"].append(words)


def _try(row: Row, section: SampleSection) -> Candidate:
    whole = row["answer"]
    text = whole if section.thoughts == "keep" else without_thoughts(whole)
    complete = row["ended"] and bool(without_thoughts(whole).strip()) and not has_control_tokens(whole)
    length = len(text) if row["tokens"] is None else row["tokens"]
    return Candidate(row["try"], text, row["score"], row["right"], tuple(row["faults"]), complete, length)


def goodness(one: ScoredRow, metrics: Mapping[str, Metric]) -> float:
    """Return the main score of an answer. If lower is better, it is 1 less the score. An answer in which no metric has
    anything to score counts 0."""
    if one.main is None:
        return 0.0
    value = one.main.value
    return round(value if metrics[one.main.metric].higher_is_better else 1 - value, 6)


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
