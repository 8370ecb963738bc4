"""The metrics of held-out samples by which checkpoints are compared, and which value of each is better."""

from qwenvl_train.config.schema import RunConfig

_OF_EVERY_METHOD = ("eval_loss", "eval_token_accuracy", "eval_exact_match")
GENERATED = "eval_generated/"
"""The metrics of generated answers begin with this."""
_LOWER_IS_BETTER = ("eval_loss", f"{GENERATED}cer", f"{GENERATED}wer")
_OF_PAIRS = ("eval_rewards/accuracies", "eval_rewards/margins", "eval_rewards/chosen", "eval_logps/chosen")


def comparable_metrics(config: RunConfig) -> list[str]:
    """Return the metrics of the evaluations of this run that can be train.best_metric. Those without a better
    direction, such as the entropy, are not among them."""
    if config.method == "sft":
        return list(_OF_EVERY_METHOD)
    terms = [f"eval_loss_{term}" for term in config.dpo.loss] if len(config.dpo.loss) > 1 else []
    return [*_OF_EVERY_METHOD, *_OF_PAIRS, *terms]


def is_better(metric: str, value: float, other: float) -> bool:
    """Return whether `value` is better than `other`. A loss or an error rate is better if it is lower, every other
    metric if it is higher."""
    return value < other if metric.startswith(_LOWER_IS_BETTER) else value > other


def about_patience(config: RunConfig, steps: int) -> str:
    """Return why a run has ended before its last step."""
    patience = config.train.patience
    evaluations = "1 evaluation" if patience == 1 else f"{patience} evaluations"
    return (
        f"It ended before its {steps:,} steps: {evaluations} gave no better {config.train.best_metric} "
        "(train.patience)."
    )


def about_unscored(config: RunConfig) -> str | None:
    """Return a line for a run that is to score generated answers, as those of a task are, but has no held-out samples
    to answer, and None for any other run."""
    if not config.eval.generate or config.data.eval is not None:
        return None
    return (
        "No answers are scored, since there are no held-out samples. data.eval=held_out.jsonl names some, and "
        "data.eval=5% holds some of data.train out."
    )


def about_best(config: RunConfig, steps: int) -> str | None:
    """Return a line for a run of which only the last checkpoint gets a held-out score, although there are others, and
    None for any other run."""
    train = config.train
    if config.data.eval is None or train.save_steps is None or train.save_steps >= steps:
        return None
    earlier = range(train.save_steps, steps, train.save_steps)
    if train.eval_steps is not None and any(step % train.eval_steps == 0 for step in earlier):
        return None
    return (
        f"Only the last checkpoint gets a held-out score, so the best one is not known: a checkpoint is saved every "
        f"{train.save_steps:,} steps, and no evaluation falls on the same step. Set train.eval_steps="
        f"{train.save_steps} to compare them."
    )
