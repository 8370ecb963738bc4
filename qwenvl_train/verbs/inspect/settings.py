"""The settings of the verb inspect, and the rules that they keep to."""

from typing import Literal

from pydantic import NonNegativeInt

from qwenvl_train.config.rules.data import DATA_RULES
from qwenvl_train.config.rules.rule import Lines, among
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.config.section import NameList, Section
from qwenvl_train.config.verb import Verb


class InspectSection(Section):
    source: Literal["train", "eval"]
    """Whether to show samples of data.train or of data.eval."""
    samples: NonNegativeInt | None
    """The number of samples to show. With null, all are shown."""
    random: bool
    """Whether to draw the samples from all rows alike, instead of the same number from each source. The seed decides
    in both cases."""
    ids: NameList
    """The ids of the samples to show."""
    lines: NameList
    """The lines of the rows to show, such as 17, or my.jsonl:17 if there are several files."""
    summary: bool
    """Whether to measure the whole source and show its figures."""
    file: str
    """The file to which output=html writes the page."""


class InspectConfig(RunConfig):
    output: Literal["text", "html", "json"]
    """Whether to print text, to write an HTML page, or to print one line of JSON for each sample."""
    inspect: InspectSection


def chosen_samples_exist(config: InspectConfig, given: frozenset[str]) -> Lines:
    if config.inspect.source == "eval" and config.data.eval is None:
        yield "inspect.source=eval needs data.eval"
    chosen = [f"inspect.{name}" for name in ("ids", "lines") if getattr(config.inspect, name)]
    if chosen:
        for key in among(given, "inspect.samples", "inspect.random"):
            yield f"{key} has no effect together with {' and '.join(chosen)}"
    elif config.inspect.samples == 0 and (config.output == "json" or not config.inspect.summary):
        yield "inspect.samples=0 leaves nothing to show"
    elif config.inspect.samples in (0, None):
        for key in among(given, "inspect.random"):
            yield f"{key} has no effect while inspect.samples={'null' if config.inspect.samples is None else 0}"


def output_settings_are_used(config: InspectConfig, given: frozenset[str]) -> Lines:
    if config.output != "html":
        for key in among(given, "inspect.file"):
            yield f"{key} has no effect without output=html"
    if config.output == "json":
        for key in among(given, "inspect.summary"):
            yield f"{key} has no effect with output=json, which prints only samples"


INSPECT = Verb(
    "inspect",
    InspectConfig,
    # Users put this verb in front of the command line of a training run, so settings of training are allowed here.
    (*DATA_RULES, chosen_samples_exist, output_settings_are_used),
    "qwenvl_train.verbs.inspect.command:run",
)
