"""The rules by name. A new rule is a module in this folder, a field of RuleSettings, and its thresholds in
configs/filter/. They are judged in this order."""

from collections.abc import Iterator

from qwenvl_train.config.section import Section
from qwenvl_train.curation.rules import repeated_ngrams
from qwenvl_train.curation.rules.rule import Rule, RuleSection

RULES = {module.RULE.name: module.RULE for module in (repeated_ngrams,)}


class RuleSettings(Section):
    """The sections of all rules that judge a row alone."""

    repeated_ngrams: repeated_ngrams.RepeatedNgrams


def used(settings: RuleSettings) -> Iterator[tuple[Rule, RuleSection]]:
    """Yield the rules that are not off, with their settings."""
    for name, rule in RULES.items():
        section: RuleSection = getattr(settings, name)
        if section.use != "off":
            yield rule, section
