"""What a verb of the command line is: its configuration, the rules that it checks, and its function."""

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

    sweep: str | None = None
    """The function that carries out the verb for all jobs of -m, as module:name. It takes a list of Job. None if the
    verb takes one set of settings only."""

    def broken_rules(self, config: RunConfig, given: frozenset[str]) -> list[str]:
        """Return one line for each problem. `given` holds the keys that the user wrote."""
        return [line for rule in self.rules for line in rule(config, given)]

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
