"""What a verb of the command line is: its configuration, the rules that it checks, and its function."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Literal

from qwenvl_train.config.rules.data import DATA_RULES
from qwenvl_train.config.rules.dpo import DPO_RULES
from qwenvl_train.config.rules.machine import MACHINE_RULES
from qwenvl_train.config.rules.rule import Rule
from qwenvl_train.config.rules.training import TRAINING_RULES
from qwenvl_train.config.schema import RunConfig

RUN_RULES: tuple[Rule, ...] = (*TRAINING_RULES, *DPO_RULES, *DATA_RULES)
"""The rules of a training run that hold on any machine."""

_OF_TRAINING = re.compile(
    r"(deepspeed|dpo|lora|optim)(\.|$)|tune_mm_|train\.(?!(best_metric|precision)$)|logging\.(predictions|tensorboard)$"
)
"""The settings that only training reads. The others of its sections say which checkpoint is the best one, how a model
computes, and which W&B run belongs to it."""


@dataclass(frozen=True)
class Verb:
    """A verb. Its default settings are in configs/<name>.yaml."""

    name: str
    config: type[RunConfig]
    rules: tuple[Rule, ...]
    function: str
    """The function that carries out the verb, as module:name. It takes a Composed, and is imported after the
    configuration is checked, so that a mistake is reported before torch is loaded."""

    reads: tuple[Literal["train", "eval"], ...] = ("train", "eval")
    """The keys of the section data whose files the verb needs. They must exist, which is checked before torch is
    loaded."""

    trains: bool = True
    """Whether the settings of training have an effect on the verb. Where they have none, the command line may not give
    them. Recipes may, since they are for several verbs."""

    sweep: str | None = None
    """The function that carries out the verb for all jobs of -m, as module:name. It takes a list of Job. None if the
    verb takes one set of settings only."""

    def broken_rules(self, config: RunConfig, given: frozenset[str]) -> list[str]:
        """Return one line for each problem. `given` holds the keys that the user wrote."""
        return [line for rule in self.rules for line in rule(config, given)]

    def without_effect(self, keys: Iterable[str]) -> list[str]:
        """Return one line for each of the keys, given on the command line, that has no effect on the verb."""
        found = [] if self.trains else [key for key in keys if _OF_TRAINING.match(key)]
        return [f"{key} has no effect on {self.name}; it is a setting of training" for key in found]

    def run(self, composed: Any) -> None:
        resolve_name(self.function)(composed)

    def run_several(self, jobs: Any) -> None:
        assert self.sweep is not None
        resolve_name(self.sweep)(jobs)


TRAIN = Verb(
    "train",
    RunConfig,
    (*RUN_RULES, *MACHINE_RULES),
    "qwenvl_train.verbs.train:run",
    sweep="qwenvl_train.verbs.sweep.command:run",
)
