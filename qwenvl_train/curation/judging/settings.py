"""The settings of judgements by a model: who judges, and what is asked. This module does not import torch."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt

from qwenvl_train.config.section import Section
from qwenvl_train.curation.rules.rule import RuleSection
from qwenvl_train.endpoint.settings import EndpointConfig

Engine = Literal["model", "endpoint", "reward_head"]
LOWEST, HIGHEST = 1, 5
"""The scores that a model can give."""
_OPTIONS = "{options}"


def _with_options(text: str) -> str:
    if text.count(_OPTIONS) != 1:
        raise ValueError(f"must contain {_OPTIONS} once, where the lettered list is written")
    return text


Score = Annotated[float, Field(ge=LOWEST, le=HIGHEST)]


class JudgeSection(Section):
    """Who judges."""

    engine: Engine
    """model is the model in `run` or model.path. endpoint is a server, see EndpointConfig. reward_head is the sequence
    classifier in reward_path, which gives one score and sees no pictures."""
    reward_path: str | None
    """The folder or hub id of a sequence classifier with one label, or one for each score from 1 to 5. It reads the
    text of the conversation in its own chat template."""
    batch_tokens: PositiveInt
    """The number of tokens of one forward pass, unless a single row has more."""


class ClassesSection(RuleSection):
    """The classes that rows are assigned to. With drop, the rows fall that are over the limit of their class, or whose
    class is dropped."""

    tree: str | None
    """A YAML file with domains, their classes and, for each class, a description or its settings (ClassSettings). With
    null, it is the example in data/classes."""
    prompt: Annotated[str, AfterValidator(_with_options)]
    """The question after the conversation. {options} stands for the lettered list of domains or classes."""
    min_probability: Annotated[float, Field(ge=0, le=1)]
    """Rows whose class is less probable than this stay without a class."""


class ClassSettings(Section):
    """A class in the YAML file of the classes. Of all keys, only the description is required."""

    description: str
    limit: PositiveInt | None = None
    """The largest number of rows of this class that stay."""
    weight: PositiveFloat | None = None
    """The weight of the rows of this class in a mixture of the classes."""
    drop: bool = False
    """Whether all rows of this class fall."""
    min: dict[str, Score | None] = Field(default_factory=dict)
    """The least value of some scores in this class, in place of that in ScoreSettings."""


def _as_settings(value: object) -> object:
    return {"description": value} if isinstance(value, str) else value


Class = Annotated[ClassSettings, BeforeValidator(_as_settings)]


class ScoreSettings(Section):
    prompt: str | None
    """The question after the conversation, to which the answer is a digit from 1 to 5. With null, the score is that of
    engine=reward_head, which is not asked a question."""
    min: float | None
    """Rows with a lower score fall. With null, the score is only measured."""
    images_only: bool
    """Whether the score is only measured for rows with pictures or videos."""


class ScoresSection(RuleSection):
    query_complexity: ScoreSettings
    query_relevance: ScoreSettings
    answer_correctness: ScoreSettings
    answer_completeness: ScoreSettings
    answer_clarity: ScoreSettings
    answer_relevance: ScoreSettings
    answer_helpfulness: ScoreSettings
    image_use: ScoreSettings
    reward: ScoreSettings
    """The score of a reward head."""
    own: dict[str, ScoreSettings]
    """Further scores by name."""

    @property
    def each(self) -> dict[str, ScoreSettings]:
        """All scores by name."""
        shipped = {name: getattr(self, name) for name in type(self).model_fields if name not in ("use", "own")}
        return {**self.own, **shipped}


class NeedlessImage(RuleSection):
    """Rows about a picture whose answer does not need it.

    The mean log-probability of the tokens of the row's answers is computed twice: in the conversation, and in the same
    conversation without its pictures and videos. The row falls if the picture adds at most `max_gain`, and if the
    answer is likely without it. Rows with boxes or points are not judged.
    """

    max_gain: float
    """How much the picture adds, in nats per token: the mean log-probability with it less that without it."""
    min_probability: Annotated[float, Field(ge=0, le=1)]
    """The least geometric mean of the probabilities of the answer's tokens without the picture. That a picture does not
    help the model with an answer which it does not know either way is no sign that it is needless."""


class JudgingSections(Section):
    """All sections that a judge needs."""

    judge: JudgeSection
    endpoint: EndpointConfig
    classes: ClassesSection
    scores: ScoresSection
    needless_image: NeedlessImage

    @property
    def judged(self) -> bool:
        """Whether a judge is needed."""
        return any(section.use != "off" for section in (self.classes, self.scores, self.needless_image))


def problems_of(sections: JudgingSections, key: str) -> Iterator[str]:
    """Yield a line for each problem that involves several settings. `key` is the name of the section that has them."""
    engine, head = sections.judge.engine, sections.judge.reward_path
    if not sections.judged:
        return
    if engine == "reward_head" and head is None:
        yield f"{key}.judge.engine=reward_head needs {key}.judge.reward_path, a sequence classifier"
    if engine != "reward_head" and head is not None:
        yield f"{key}.judge.reward_path has no effect with {key}.judge.engine={engine}"
    if engine == "reward_head" and sections.classes.use != "off":
        yield f"{key}.classes needs {key}.judge.engine=model or endpoint; a reward head gives only a score"
    if engine != "model" and sections.needless_image.use != "off":
        yield f"{key}.needless_image needs {key}.judge.engine=model, which knows how likely the answers of rows are"
    by_head = engine == "reward_head"
    if sections.scores.use != "off" and not any(
        (one.prompt is None) == by_head for one in sections.scores.each.values()
    ):
        with_or_without = "without" if by_head else "with"
        yield f"{key}.scores has no score {with_or_without} a prompt, for {key}.judge.engine={engine}"
    for name in sections.scores.own.keys() & ScoresSection.model_fields.keys():
        yield f"{key}.scores.own.{name} has the name of a setting of {key}.scores; choose another name"
