"""The settings of the verb sample, and the rules that they keep to."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from qwenvl_train.config.inference import InferenceConfig, one_model
from qwenvl_train.config.rules.data import DATA_RULES
from qwenvl_train.config.rules.machine import is_installed, quantizing_is_installed
from qwenvl_train.config.rules.rule import Lines, among
from qwenvl_train.config.scoring import own_code_is_allowed
from qwenvl_train.config.section import CountOrAuto, Section
from qwenvl_train.config.verb import Verb
from qwenvl_train.curation.rules.rule import RuleSection
from qwenvl_train.curation.rules.table import RuleSettings
from qwenvl_train.endpoint.settings import EndpointConfig
from qwenvl_train.verbs.sample.policies import Keep, PairUp

Share = Annotated[float, Field(ge=0, le=1)]


def _rules(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked settings of each rule that is named."""
    fields = {name: field.rebuild_annotation() for name, field in RuleSettings.model_fields.items()}
    found = {}
    for name, settings in given.items():
        if name not in fields:
            known = ", ".join(fields)
            raise PydanticCustomError(
                "rules", "{text}", {"text": f"a mapping from rules, which are {known}; there is no rule {name}"}
            )
        try:
            found[name] = TypeAdapter(fields[name]).validate_python(settings)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, (name, *first["loc"])))
            text = f"a mapping from rules to all of their settings; {key}: {first['msg']}"
            raise PydanticCustomError("rules", "{text}", {"text": text}) from None
    return found


class CheckThoughts(RuleSection):
    """Answers about images whose thoughts do not use them, as the model that answers judges. drop keeps none of them,
    and mark only lists them. Only answers that are right and without other faults are judged."""

    prompt: str
    """The question after the thoughts, to which the answer is A if they use the image, and B if not."""
    min_probability: Share
    """The lowest probability of A of thoughts that use the image."""


class SampleSection(Section):
    to: str | None
    """The folder of the results. It must be set."""
    tries: PositiveInt
    """The number of answers to each question."""
    temperature: NonNegativeFloat
    """With 0, the most likely token is always taken. Above 0, tokens are drawn by chance, after the seed."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Only the most likely tokens are drawn that together have this probability."""
    top_k: NonNegativeInt
    """The number of the most likely tokens that are drawn. With 0, there is no limit."""
    max_new_tokens: PositiveInt
    """The number of tokens at which an answer is cut."""
    batch_size: CountOrAuto
    """The number of rows whose answers are drawn together on each device. auto is as many as its memory allows."""
    engine: Literal["transformers", "endpoint"]
    """Whether the model is loaded here, or a server with OpenAI's interface has it."""
    endpoint: EndpointConfig
    """The server of engine=endpoint."""
    right: float
    """The lowest main score of a right answer."""
    rules: Annotated[dict[str, Any], AfterValidator(_rules)]
    """The rules of curation that judge each answer, with all settings of each. Those that are not named are off."""
    check_thoughts: CheckThoughts
    keep: Keep
    """Whether the best right answer to a question is kept, or all different right ones."""
    most: PositiveInt | None
    """The largest number of answers that are kept of a question. With null, there is no limit."""
    pass_rate: tuple[Share, Share]
    """The lowest and the highest share of right answers of the questions that are used."""
    min_distance: Share
    """The smallest edit distance between the answers that are kept of a question, as a share of the longer one."""
    thoughts: Literal["keep", "drop"]
    """Whether the rows have the thoughts before the answers."""
    pairs: PairUp
    """How a right and a wrong answer become a pair: those closest in length, or the wrong one with the best score."""
    most_pairs: PositiveInt
    """The largest number of pairs of a question."""
    form: Literal["ms_swift", "llama_factory", "trl"]
    """The trainer whose form the rows have. This project reads them all."""


class SampleConfig(InferenceConfig):
    output: Literal["text", "json"]
    """Whether to print text, or one line of JSON."""
    sample: SampleSection


def rows_and_a_folder_are_named(config: SampleConfig, given: frozenset[str]) -> Lines:
    if config.sample.to is None:
        yield "sample.to is not set; name the folder of the results"
    if not config.data.train:
        yield "data.train is not set; name the file of the rows whose questions are to be answered"


_OF_EVALUATIONS = ("eval.generate", "eval.samples", "eval.batch_size", "eval.max_new_tokens")


def only_metrics_are_those_of_eval(config: SampleConfig, given: frozenset[str]) -> Lines:
    for key in among(given, *_OF_EVALUATIONS):
        meant = key.replace("eval.", "sample.")
        hint = f"; did you mean {meant}?" if meant.partition(".")[2] in SampleSection.model_fields else ""
        yield f"{key} has no effect on sample, which takes only eval.metrics and eval.allow_code{hint}"


def answers_are_drawn(config: SampleConfig, given: frozenset[str]) -> Lines:
    sample = config.sample
    if sample.temperature == 0:
        if sample.tries > 1:
            yield (
                f"sample.temperature=0 gives the same answer {sample.tries} times; set it above 0, or sample.tries=1"
            )
        for key in among(given, "sample.top_p", "sample.top_k"):
            yield f"{key} has no effect with sample.temperature=0"


def the_engine_has_what_it_needs(config: SampleConfig, given: frozenset[str]) -> Lines:
    if config.sample.engine == "transformers":
        for key in sorted(key for key in given if key.startswith("sample.endpoint")):
            yield f"{key} has no effect without sample.engine=endpoint"
        return
    for name in ("url", "model"):
        if not getattr(config.sample.endpoint, name):
            yield f"sample.engine=endpoint needs sample.endpoint.{name}"
    for key in among(given, "sample.top_k", "sample.batch_size"):
        yield f"{key} has no effect with sample.engine=endpoint"


def policies_are_used(config: SampleConfig, given: frozenset[str]) -> Lines:
    sample = config.sample
    if sample.check_thoughts.use == "off":
        for key in among(given, "sample.check_thoughts.prompt", "sample.check_thoughts.min_probability"):
            yield f"{key} has no effect with sample.check_thoughts.use=off"
    if sample.keep == "best":
        for key in among(given, "sample.most", "sample.min_distance"):
            yield f"{key} has no effect with sample.keep=best"
    if sample.pairs == "none":
        for key in among(given, "sample.most_pairs"):
            yield f"{key} has no effect with sample.pairs=none"
    low, high = sample.pass_rate
    if low > high:
        yield f"sample.pass_rate: {low} is above {high}; give the lowest and the highest rate"


def rapidfuzz_is_installed(config: SampleConfig, given: frozenset[str]) -> Lines:
    if config.sample.min_distance > 0 and not is_installed("rapidfuzz"):
        yield "sample.min_distance needs rapidfuzz: pip install 'qwenvl-train[curate]'"


SAMPLE = Verb(
    "sample",
    SampleConfig,
    (
        *DATA_RULES,
        quantizing_is_installed,
        rapidfuzz_is_installed,
        one_model,
        rows_and_a_folder_are_named,
        only_metrics_are_those_of_eval,
        own_code_is_allowed,
        answers_are_drawn,
        the_engine_has_what_it_needs,
        policies_are_used,
    ),
    "qwenvl_train.verbs.sample.command:run",
    reads=("train",),
    trains=False,
)
