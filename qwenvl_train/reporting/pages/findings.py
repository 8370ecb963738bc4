"""The first glance of the report: what the run has learned, and what speaks for and against its figures."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce
from statistics import fmean, median
from typing import Literal

from qwenvl_train.config.best import GENERATED, is_better
from qwenvl_train.reporting.intervals import share_interval
from qwenvl_train.reporting.metrics import before_and_after
from qwenvl_train.reporting.progress import WAITING
from qwenvl_train.reporting.recorded import RecordedRun
from qwenvl_train.reporting.reporter import Row, is_evaluation
from qwenvl_train.reporting.spikes import SPIKE
from qwenvl_train.reporting.wording import count, figure, is_finite, is_ratio, label, main_metrics, many, percent

RISE = 0.05
"""The held-out loss has risen if it is more than this share above its lowest value."""
FEW_SAMPLES = 50


@dataclass(frozen=True)
class Finding:
    kind: Literal["good", "note", "warning", "bad"]
    text: str


@dataclass(frozen=True)
class HeldOutScore:
    """The score that stands for a run, before and after training."""

    metric: str
    value: float
    before: float | None
    interval: tuple[float, float] | None
    """The range in which the score of all such samples lies with a probability of 95 %, or None if it is not known."""
    samples: int
    step: int
    lower_is_better: bool = False
    """Whether the metric is one of the user's own for which lower values are better."""

    def is_better_than(self, other: float) -> bool:
        return self.value < other if self.lower_is_better else is_better(self.metric, self.value, other)


def findings(run: RecordedRun) -> list[Finding]:
    return [*_learned(run), *_over_fitting(run), *_trouble(run), *_speed(run), *_forecast(run)]


def held_out_score(run: RecordedRun) -> HeldOutScore | None:
    """Return the score that stands for the run: that of train.best_metric, unless it is the loss, or else that of
    generated answers if there is one. If the run was evaluated once, there is no score before training."""
    before, after = before_and_after(run.rows)
    last = after or before
    if last is None:
        return None
    first = (before or {}) if after else {}
    metric = next(iter(main_metrics(last, run.best_metric)), "")
    if not metric:
        return None
    for found in sorted(run.scores, key=lambda score: score["entry"] != "all"):
        if metric == f"{GENERATED}{found['metric']}":
            interval = (found["low"], found["high"])
            lower = found.get("higher_is_better") is False
            return HeldOutScore(
                metric, last[metric], first.get(metric), interval, found["samples"], last["step"], lower
            )
    samples = last.get("eval_samples", 0)
    counted = metric in ("eval_exact_match", "eval_rewards/accuracies") and samples
    interval_of_share = share_interval(last[metric], samples) if counted else None
    return HeldOutScore(metric, last[metric], first.get(metric), interval_of_share, samples, last["step"])


def _learned(run: RecordedRun) -> Iterator[Finding]:
    score = held_out_score(run)
    if score is None:
        if run.rows:
            text = "There is no held-out score. data.eval names samples to evaluate on; data.eval=5% holds some out."
            yield Finding("warning", text)
        return
    name = label(score.metric)
    around = []
    if score.interval:
        low, high = (figure(score.metric, end).removesuffix(" %") for end in score.interval)
        around.append(f"95 % interval {low} to {high}" + (" %" if is_ratio(score.metric) else ""))
    if score.samples:
        around.append(many(score.samples, "sample"))
    note = f" ({', '.join(around)})" if around else ""
    now = figure(score.metric, score.value)
    if score.before is None or not is_finite(score.before):
        when = "before training" if score.step == 0 else f"at step {count(score.step)}"
        yield Finding("note", f"Held-out {name} is {now} {when}{note}.")
    elif score.value == score.before:
        yield Finding("note", f"Held-out {name} is {now}, as before training{note}.")
    else:
        verb = "rose" if score.value > score.before else "fell"
        change = f"Held-out {name} {verb} from {figure(score.metric, score.before)} to {now}{note}."
        by_chance = score.interval is not None and score.interval[0] <= score.before <= score.interval[1]
        if by_chance:
            yield Finding("warning", f"{change} The score before training lies in this interval.")
        else:
            yield Finding("good" if score.is_better_than(score.before) else "bad", change)
    if score.interval and score.samples < FEW_SAMPLES:
        held_out = many(score.samples, "held-out sample")
        yield Finding("warning", f"{held_out} say little: with more of them, the interval is narrower.")


def _over_fitting(run: RecordedRun) -> Iterator[Finding]:
    """Yield whether the held-out loss has risen since its lowest value, which over-fitting does."""
    losses = [(row["step"], row["eval_loss"]) for row in run.rows if is_finite(row.get("eval_loss"))]
    if len(losses) < 3:
        return
    step, lowest = min(losses, key=lambda one: one[1])
    last_step, last = losses[-1]
    if last - lowest > RISE * abs(lowest) and step < last_step:
        yield Finding(
            "warning",
            f"The held-out loss was lowest at step {count(step)} ({figure('loss', lowest)}) and has risen to "
            f"{figure('loss', last)} since, which is a sign of over-fitting.",
        )
    else:
        about = f"is within {percent(RISE).replace('.0', '')} of its lowest value"
        yield Finding("good", f"The held-out loss {about}: no sign of over-fitting.")


def _trouble(run: RecordedRun) -> Iterator[Finding]:
    steps = [row for row in run.rows if not is_evaluation(row)]
    if overlap := run.environment.get("overlap"):
        yield Finding("warning", overlap)
    if broken := [row["step"] for row in steps if "loss" in row and row["loss"] is None]:
        logged = many(len(broken), "logged step")
        yield Finding("bad", f"The loss was not a number at {logged}, first at step {count(broken[0])}.")
    if skipped := max((row.get("skipped_steps", 0) for row in steps), default=0):
        yield Finding(
            "bad",
            f"{many(skipped, 'step')} without effect, because the loss or the gradient was not a number. The folder "
            "nan has the samples.",
        )
    if spikes := [row["step"] for row in steps if row.get(SPIKE)]:
        where = ", ".join(map(count, spikes[:5])) + (", …" if len(spikes) > 5 else "")
        yield Finding("note", f"{many(len(spikes), 'spike')} of the training loss, at step {where}.")
    if rows := run.summary.get("skipped"):
        yield Finding("warning", f"{many(rows, 'row')} left out; skipped.jsonl has the reasons.")


def _speed(run: RecordedRun) -> Iterator[Finding]:
    waits = [row["data_wait"] for row in run.rows if is_finite(row.get("data_wait"))]
    if not waits:
        return
    share = fmean(waits)
    if share >= WAITING:
        yield Finding("warning", f"Training waited for data {percent(share)} of the time; see data.workers.")
    else:
        yield Finding("good", f"Training waited for data {percent(share)} of the time.")


def _forecast(run: RecordedRun) -> Iterator[Finding]:
    """Yield what `plan` forecast beside what came."""
    forecast, parts = run.environment.get("forecast") or {}, []
    seconds = [row["step_seconds"] for row in run.rows if is_finite(row.get("step_seconds"))]
    memory = [row["memory_gib"] for row in run.rows if is_finite(row.get("memory_gib"))]
    if forecast.get("step_seconds") and seconds:
        parts.append(f"a step took {_short(median(seconds))} s (forecast {_short(forecast['step_seconds'])} s)")
    if forecast.get("memory_gib") and memory:
        parts.append(f"at most {_short(max(memory))} GiB were used (forecast {_short(forecast['memory_gib'])} GiB)")
    if parts:
        text = ", and ".join(parts)
        yield Finding("note", f"{text[0].upper()}{text[1:]}.")


def _short(value: float) -> str:
    return f"{value:.3g}"


def evaluation_table(run: RecordedRun) -> Row | None:
    """Return the table of all evaluations: the step, and a figure of each metric with whether it is the best one. None
    is if all are the same."""
    evaluations = [row for row in run.rows if is_evaluation(row)]
    keys = list(dict.fromkeys(key for row in evaluations for key in main_metrics(row, run.best_metric)))
    if len(evaluations) < 2 or not keys:
        return None
    lower = {f"{GENERATED}{found['metric']}" for found in run.scores if found.get("higher_is_better") is False}
    best = {}
    for key in keys:
        values = [row[key] for row in evaluations if is_finite(row.get(key))]
        if min(values) < max(values):
            best[key] = min(values) if key in lower else reduce(partial(_better, key), values)
    return {
        "headings": [label(key) for key in keys],
        "rows": [(count(row["step"]), [_cell(key, row, best.get(key)) for key in keys]) for row in evaluations],
    }


def _cell(metric: str, row: Row, best: float | None) -> tuple[str, bool]:
    return (figure(metric, row[metric]), row[metric] == best) if metric in row else ("", False)


def _better(metric: str, one: float, other: float) -> float:
    return other if is_better(metric, other, one) else one
