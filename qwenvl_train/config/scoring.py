"""The settings by which generated answers are made and scored."""

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from qwenvl_train.config.rules.rule import Lines
from qwenvl_train.config.section import CountOrAuto, NameList, Section


class EvalConfig(Section):
    generate: bool
    """Whether answers are generated and scored at each evaluation of a training run."""
    samples: PositiveInt | None
    """The number of held-out samples that are answered, spread over the files of data.eval. With null, all are."""
    metrics: Annotated[NameList, Field(min_length=1)]
    """The metrics, by name. auto takes those that a row or its entry of data.eval names, and otherwise chooses by the
    form of the expected answers. A dotted name, such as my_package.my_metric, is a function of your own."""
    allow_code: bool
    """Whether a metric of your own may be imported, which runs its code."""
    batch_size: CountOrAuto
    """The number of samples that are answered together on each device. auto is as many as its memory allows."""
    max_new_tokens: PositiveInt
    """The number of tokens at which an answer is cut."""


def own_code_is_allowed(config: Any, given: frozenset[str]) -> Lines:
    own = [name for name in config.eval.metrics if is_own_metric(name)]
    if own and not config.eval.allow_code:
        yield f"eval.metrics={own[0]} imports and runs your own code; set eval.allow_code=true to allow it"
    entries = (*config.data.train, *config.data.eval_entries)
    own += [name for entry in entries for name in entry.metric if is_own_metric(name)]
    if not own and config.eval.allow_code and "eval.allow_code" in given:
        yield "eval.allow_code=true has no effect, since eval.metrics has no function of your own"


def is_own_metric(name: str) -> bool:
    """Return whether the name of a metric is that of a function to import."""
    return "." in name
