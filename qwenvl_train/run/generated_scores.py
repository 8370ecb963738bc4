"""The scores of answers that are generated at the evaluations of a run, in which all processes share the work."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from qwenvl_train.config.best import GENERATED
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.answering import answers_to, groups_of, samples_to_answer
from qwenvl_train.evaluation.episodes import with_episodes
from qwenvl_train.evaluation.generation import AnswerGenerator
from qwenvl_train.evaluation.metrics.metric import Metric, Scores, figures
from qwenvl_train.evaluation.scoring import (
    ScoredRow,
    choose_metrics,
    figures_of,
    load_metrics,
    metrics_of_entries,
    named_figures,
    score,
)
from qwenvl_train.model.decoding import this_process
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.run.context import RunContext

BATCH_SIZE = 16
"""The number of samples that are answered together if eval.batch_size is auto. During training, the memory of the
device is needed for other things."""


class GeneratedScores:
    """Answers the same samples at each evaluation, and scores the answers."""

    def __init__(self, context: RunContext, rows: Rows, folder: RunFolder):
        self._context, self._folder = context, folder
        config = context.config
        self._rows = rows
        """The held-out samples, whose media are decoded, since stored features are not made for generation."""
        size = BATCH_SIZE if config.eval.batch_size == "auto" else config.eval.batch_size
        self.indices = samples_to_answer(rows, config.eval.samples, config.seed)
        groups = groups_of(rows, self.indices, size)
        self._groups = groups[context.rank :: context.processes]
        self._rounds = -(-len(groups) // context.processes)
        self._newest: tuple[int, list[ScoredRow]] = (-1, [])
        """The step of the newest evaluation, and its answers."""

    def __call__(self, model: PreTrainedModel | PeftModel, step: int, sharded: bool) -> dict[str, Any]:
        """Return the scores as metrics. All processes must call this together."""
        context, config = self._context, self._context.config
        group = context.cpu_group
        any_process = group.any if sharded else this_process
        tokenizer, limit = context.processor.tokenizer, config.eval.max_new_tokens
        generate = AnswerGenerator(model, context.family, tokenizer, limit, any_process)
        # With sharded weights, a process with fewer groups answers its last one again, without counting it.
        groups = [*self._groups, *[[]] * (self._rounds - len(self._groups))] if sharded else self._groups
        mine = [row for answers, _ in answers_to(self._rows, groups, generate, 0) for row in answers]
        rows = sorted(group.everything(mine), key=lambda row: (row["index"], row["turn"]))
        if not rows:
            return {}
        chosen = choose_metrics(rows, config.eval.metrics, metrics_of_entries(config.data))
        metrics = load_metrics(chosen)
        # Some metrics are slow, so each process scores a part of the answers.
        share = rows[context.rank :: context.processes]
        scored = group.everything(score(share, chosen, metrics, context.family))
        scored.sort(key=lambda one: (one.row["index"], one.row["turn"]))
        scored = with_episodes(scored, metrics)
        self._newest = step, scored
        if context.is_main:
            answers = [{**one.row, "scores": one.plain()} for one in scored]
            self._folder.write_answers(step, answers, _with_intervals(scored, metrics, config.seed))
        return self._metrics(scored, metrics)

    def answers_of(self, step: int) -> list[ScoredRow]:
        """Return the answers of the evaluation at a step, those of all processes, or none if it was not the newest."""
        at, scored = self._newest
        return scored if at == step else []

    def _metrics(self, scored: Sequence[ScoredRow], metrics: Iterable[str]) -> dict[str, Any]:
        """Return the scores. A metric that has nothing to score in these answers has none."""
        found: dict[str, Any] = {f"{GENERATED}{name}": value for name, value in _figures(scored).items()}
        wanted = self._context.config.train.best_metric
        idle = [f"{GENERATED}{name}" for name in metrics if f"{GENERATED}{name}" not in found]
        of_idle = any(wanted == name or wanted.startswith(f"{name}_") for name in idle)
        if wanted.startswith(GENERATED) and wanted not in found and not of_idle:
            raise UserError(f"train.best_metric={wanted}: the generated answers have the scores {', '.join(found)}.")
        found["eval_answers"] = len(scored)
        entries = dict.fromkeys(one.row["entry"] for one in scored)
        if len(entries) > 1:
            found["eval_sources"] = {
                entry: {f"generated/{name}": value for name, value in _figures(mine).items()} | {"answers": len(mine)}
                for entry, mine in ((entry, _of(scored, entry)) for entry in entries)
            }
        return found


def _of(scored: Sequence[ScoredRow], entry: str) -> list[ScoredRow]:
    return [one for one in scored if one.row["entry"] == entry]


def _with_intervals(scored: Sequence[ScoredRow], metrics: Mapping[str, Metric], seed: int) -> list[dict[str, Any]]:
    """Return the score of each entry by each metric with its 95 % interval, by the names of metrics.jsonl."""
    return [
        {"entry": entry, "metric": name, "value": one.value, "low": one.low, "high": one.high}
        | {"samples": one.samples, "higher_is_better": one.higher_is_better}
        for (entry, name), one in named_figures(figures_of(scored, metrics, seed)).items()
    ]


def _figures(scored: Sequence[ScoredRow]) -> dict[str, float]:
    """Return the figure of each metric and of its sub-scores, over all samples that have it."""
    found: dict[str, float] = {}
    for metric in dict.fromkeys(name for one in scored for name in one.scores):
        parts: list[Scores] = [one.scores[metric] for one in scored if metric in one.scores]
        for number, (name, value) in enumerate(figures(parts).items()):
            found[metric if number == 0 else f"{metric}_{name}"] = value
    return found
