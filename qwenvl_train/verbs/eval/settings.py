"""The settings of the verb eval, and the rules that they keep to."""

from typing import Literal

from pydantic import NonNegativeInt

from qwenvl_train.config.inference import InferenceConfig, added_to_wandb_run, one_model
from qwenvl_train.config.rules.data import DATA_RULES
from qwenvl_train.config.rules.rule import Lines
from qwenvl_train.config.scoring import EvalConfig, own_code_is_allowed
from qwenvl_train.config.section import NameList
from qwenvl_train.config.verb import Verb


class EvalSection(EvalConfig):
    to: str | None
    """The folder of the results. With null, it is a folder in eval/ of the run folder, or of output_dir."""
    compare: NameList
    """Further models that answer the same samples: run folders, checkpoints, paths or hub ids of models, or base for
    the base model of an adapter."""
    worst: NonNegativeInt
    """The number of answers with the lowest scores that are shown."""
    wandb: bool
    """Whether the scores, and the answers with the lowest ones, are added to the W&B run of `run`."""


class EvalVerbConfig(InferenceConfig):
    output: Literal["text", "html", "json"]
    """Whether to print text, to write an HTML page, too, or to print one line of JSON."""
    eval: EvalSection


def samples_are_held_out(config: EvalVerbConfig, given: frozenset[str]) -> Lines:
    if config.data.eval is None:
        yield "data.eval is not set; name the file of the samples to answer"
    if config.data.eval_share is not None and not config.data.train:
        yield f"data.eval={config.data.eval} is a share of data.train, which is not set"


def it_always_generates(config: EvalVerbConfig, given: frozenset[str]) -> Lines:
    if "eval.generate" in given:
        yield "eval.generate has no effect on eval, which always generates answers; it is for training runs"


EVAL = Verb(
    "eval",
    EvalVerbConfig,
    (
        *DATA_RULES,
        one_model,
        samples_are_held_out,
        it_always_generates,
        own_code_is_allowed,
        added_to_wandb_run("eval"),
    ),
    "qwenvl_train.verbs.eval.command:run",
    reads=("eval",),
    trains=False,
)
