"""Judges rows by one rule, with the settings of a preset."""

from functools import lru_cache
from typing import Any

import yaml

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.curation.rules.table import RULES, RuleSettings
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.sample import Sample
from tests.curation.clean_rows import row

PRESETS = ("report", "strict", "light")


@lru_cache
def raw_preset(name: str) -> dict[str, dict[str, Any]]:
    rules = yaml.safe_load((asset_dir("configs") / "filter" / f"{name}.yaml").read_text())
    return {rule: values for rule, values in rules.items() if rule in RULES}


def preset(name: str, **changes: dict[str, Any]) -> RuleSettings:
    """Return the settings of a preset with some changed, by the name of the rule."""
    given = raw_preset(name)
    return RuleSettings.model_validate(given | {rule: given[rule] | change for rule, change in changes.items()})


def judged(rule: str, sample: Sample, name: str = "strict", **changes: Any) -> Verdict | None:
    """Return the verdict of a rule on a row."""
    settings = preset(name, **{rule: changes})
    return RULES[rule].judge(RowView(sample), getattr(settings, rule))


def falls(rule: str, answer: str, question: str = "Describe the picture.", **changes: Any) -> bool:
    """Return whether a row of one question and one answer falls to a rule of the preset strict."""
    verdict = judged(rule, row(question, answer, None), **changes)
    if verdict is not None:
        assert bool(verdict.evidence) == verdict.falls
    return verdict is not None and verdict.falls
