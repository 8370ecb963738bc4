"""The answers to held-out samples that the report and trackers show, with their scores."""

from collections.abc import Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.answering import answers_to, groups_of, samples_to_answer
from qwenvl_train.evaluation.generation import AnswerGenerator
from qwenvl_train.evaluation.scoring import (
    ScoredRow,
    choose_metrics,
    load_available,
    metrics_of_entries,
    score,
)
from qwenvl_train.model.decoding import this_process
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.generated_scores import BATCH_SIZE, GeneratedScores

Row = dict[str, Any]


class ShownAnswers:
    """Answers the same samples at each evaluation."""

    def __init__(self, context: RunContext, rows: Rows, scorer: GeneratedScores | None):
        """`rows` are the held-out samples, whose media are decoded. The answers of `scorer`, if the run has one, are
        not generated again: some of its samples are shown."""
        self._context, self._rows, self._scorer = context, rows, scorer
        config, among = context.config, scorer.indices if scorer else None
        self._indices = samples_to_answer(rows, config.logging.predictions, config.seed, among)

    def __call__(self, model: PreTrainedModel | PeftModel, step: int, sharded: bool) -> list[Row]:
        """Return the answers in the order of the samples, each with its figure by each metric as `scores`, and with
        whether it is `right`. With sharded weights, all processes must call this together."""
        scored = self._scorer.answers_of(step) if self._scorer else self._scored(self._generated(model, sharded))
        chosen = set(self._indices)
        shown = [one for one in scored if one.row["index"] in chosen]
        answered = [{**one.row, "scores": one.figures(), "right": one.right} for one in shown]
        return sorted(answered, key=lambda row: (row["index"], row["turn"]))

    def _generated(self, model: PreTrainedModel | PeftModel, sharded: bool) -> list[Row]:
        context = self._context
        any_process = context.cpu_group.any if sharded else this_process
        limit = context.config.eval.max_new_tokens
        generate = AnswerGenerator(model, context.family, context.processor.tokenizer, limit, any_process)
        groups = groups_of(self._rows, self._indices, BATCH_SIZE)
        return [row for answers, _ in answers_to(self._rows, groups, generate, 0) for row in answers]

    def _scored(self, rows: Sequence[Row]) -> list[ScoredRow]:
        config = self._context.config
        try:
            chosen = choose_metrics(rows, config.eval.metrics, metrics_of_entries(config.data))
        except UserError:  # a row names a metric that would run code; these scores are no reason to end the run
            return [ScoredRow(row, {}) for row in rows]
        return score(rows, *load_available(chosen), self._context.family)
