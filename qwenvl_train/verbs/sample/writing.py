"""The rows that come of judged answers: conversations and pairs to train on, and questions that no answer solves."""

from dataclasses import dataclass, field, replace
from typing import Any

from qwenvl_train.data.formats.writing import Raw, conversation_row, pair_row, scoring_columns
from qwenvl_train.data.index.lengths import Problem, problem_of
from qwenvl_train.data.render.regions import in_words, with_written_tools
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Image, Part, Sample, Text, Video
from qwenvl_train.errors import UserError
from qwenvl_train.verbs.sample.answers import DrawnAnswers
from qwenvl_train.verbs.sample.judging import Judged, answered
from qwenvl_train.verbs.sample.policies import Candidate, Pair, best_try, in_window, kept, paired, pass_rate


@dataclass(frozen=True)
class QuestionRows:
    """The rows that come of one question."""

    sft: list[Raw] = field(default_factory=list)
    pairs: list[Raw] = field(default_factory=list)
    unsolved: list[Raw] = field(default_factory=list)
    outside: bool = False
    """Whether it is solved, and its pass rate is not in sample.pass_rate."""
    problem: Problem | None = None
    """Why it could not be written."""


def rows_of(one: Judged, drawn: DrawnAnswers) -> QuestionRows:
    try:
        return _rows_of(replace(one, sample=in_text(one.sample, drawn.samples.renderer)), drawn)
    except UserError as error:
        return QuestionRows(problem=problem_of((one.sample.source, one.sample.line), error))


def _rows_of(one: Judged, drawn: DrawnAnswers) -> QuestionRows:
    section = drawn.config.sample
    if pass_rate(one.tries) == 0:
        return QuestionRows(unsolved=[_unsolved(one, drawn)])
    if not in_window(one.tries, section.pass_rate):
        return QuestionRows(outside=True)
    answers = kept(one.tries, section.keep, section.most, section.min_distance)
    pairs = paired(one.tries, section.pairs, section.most_pairs)
    return QuestionRows([_sft(one, answer, drawn) for answer in answers], [_pair(one, pair, drawn) for pair in pairs])


def _sft(one: Judged, answer: Candidate, drawn: DrawnAnswers) -> Raw:
    row = conversation_row(answered(_named(one, answer), answer.text), drawn.config.sample.form)
    return row | {"sampled": _sampled(one, answer, drawn)}


def _pair(one: Judged, pair: Pair, drawn: DrawnAnswers) -> Raw:
    chosen, rejected = pair
    row = pair_row(_named(one, chosen).question, chosen.text, rejected.text, drawn.config.sample.form)
    return row | {"sampled": _sampled(one, chosen, drawn) | {"rejected": _of_try(one, rejected)}}


def _unsolved(one: Judged, drawn: DrawnAnswers) -> Raw:
    """Return the raw row of a question with its true answer, so that it can be asked again, and the best answer."""
    best = best_try(one.tries)
    row = conversation_row(one.sample, drawn.config.sample.form) | scoring_columns(one.sample)
    facts = {"best_try": best.text, "faults": list(best.faults), "sampled": _sampled(one, best, drawn)}
    return row | facts


def _named(one: Judged, answer: Candidate) -> Sample:
    """Return the question with an id of its own, since several rows may come of one."""
    turn = f"/{one.turn}" if one.turns > 1 else ""
    return replace(one.sample, id=f"{one.sample.id}{turn}/{answer.number}")


def _sampled(one: Judged, answer: Candidate, drawn: DrawnAnswers) -> dict[str, Any]:
    """Return where an answer comes from, and how hard its question is."""
    section = drawn.config.sample
    how = {"model": drawn.model, "temperature": section.temperature, "top_p": section.top_p, "top_k": section.top_k}
    rate = round(pass_rate(one.tries), 6)
    return {**how, "pass_rate": rate, "tries": len(one.tries), **_of_try(one, answer)}


def _of_try(one: Judged, answer: Candidate) -> dict[str, Any]:
    return {"try": answer.number, "seed": one.seed_of(answer), "score": answer.score}


def in_text(sample: Sample, renderer: Renderer) -> Sample:
    """Return the sample with its boxes and points as text in the notation of the model, as its answers have them."""
    parts = [part for turn in sample.turns for part in turn.parts]
    calls = [call for turn in sample.turns for call in turn.calls]
    if all(isinstance(part, Text | Image | Video) for part in parts) and not any(call.regions for call in calls):
        return sample
    sizes = [(size.original, size.resized) for size in renderer.layout(sample).pictures]
    sample = with_written_tools(sample, renderer.family, sizes)

    def as_text(part: Part) -> Part:
        return (
            part
            if isinstance(part, Text | Image | Video)
            else Text(in_words(part, renderer.family, sizes, sample.where))
        )

    turns = (replace(turn, parts=tuple(map(as_text, turn.parts))) for turn in sample.turns)
    return replace(sample, turns=tuple(turns))
