"""The rules by name. A new rule is a module in this folder, a field of RuleSettings, and its thresholds in
configs/filter/. They are judged in this order."""

from functools import cached_property

from qwenvl_train.config.section import Section
from qwenvl_train.curation.rules import (
    blank_images,
    image_size,
    language,
    leaked_answer,
    lengths,
    malformed_boxes,
    malformed_html,
    malformed_json,
    malformed_tables,
    malformed_tool_calls,
    mixed_languages,
    repeated_lines,
    repeated_ngrams,
    repeated_sentences,
    unfinished,
    unreadable_images,
    unwanted,
)
from qwenvl_train.curation.rules.rule import Rule, RuleSection

_MODULES = (
    repeated_ngrams,
    repeated_lines,
    repeated_sentences,
    unfinished,
    malformed_json,
    malformed_html,
    malformed_tool_calls,
    malformed_tables,
    malformed_boxes,
    unwanted,
    language,
    mixed_languages,
    leaked_answer,
    lengths,
    image_size,
    unreadable_images,
    blank_images,
)
RULES = {module.RULE.name: module.RULE for module in _MODULES}


class RuleSettings(Section):
    """The sections of all rules that judge a row alone."""

    repeated_ngrams: repeated_ngrams.RepeatedNgrams
    repeated_lines: repeated_lines.RepeatedLines
    repeated_sentences: repeated_sentences.RepeatedSentences
    unfinished: unfinished.Unfinished
    malformed_json: RuleSection
    malformed_html: RuleSection
    malformed_tool_calls: RuleSection
    malformed_tables: RuleSection
    malformed_boxes: malformed_boxes.MalformedBoxes
    unwanted: unwanted.Unwanted
    language: language.Language
    mixed_languages: mixed_languages.MixedLanguages
    leaked_answer: leaked_answer.LeakedAnswer
    lengths: lengths.Lengths
    image_size: image_size.ImageSize
    unreadable_images: RuleSection
    blank_images: blank_images.BlankImages

    @cached_property
    def used(self) -> tuple[tuple[Rule, RuleSection], ...]:
        """The rules that are not off, with their settings."""
        sections = ((rule, getattr(self, name)) for name, rule in RULES.items())
        return tuple((rule, section) for rule, section in sections if section.use != "off")
