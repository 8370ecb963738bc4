"""Whether the thoughts before answers use the images, as a model judges: it answers a question about each."""

import math
from collections.abc import Sequence
from dataclasses import replace

from qwenvl_train.curation.judging.by_endpoint import EndpointEngine
from qwenvl_train.curation.judging.causal import CausalEngine, causal_model
from qwenvl_train.curation.judging.engine import Engine
from qwenvl_train.curation.judging.prompts import Choice
from qwenvl_train.curation.judging.store import JudgementStore
from qwenvl_train.curation.judging.stored import StoredFigures
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.sample import Sample, Text, Turn
from qwenvl_train.endpoint.client import Endpoint
from qwenvl_train.evaluation.batches import MAX_TOKENS
from qwenvl_train.run.context import RunContext
from qwenvl_train.verbs.sample.settings import SampleConfig


class ThoughtsJudge:
    def __init__(self, engine: Engine, prompt: str, store: JudgementStore):
        self._engine, self._store = engine, store
        self._question = Choice(prompt, ("A", "B"))

    def probabilities(self, samples: Sequence[Sample]) -> list[float | str]:
        """Return for the last answer of each conversation how likely its thoughts use the images, or why this was not
        judged. Whatever was computed is stored, also if an error ends the call."""
        stored = StoredFigures(self._engine, self._store, list(map(thoughts_as_answer, samples)))
        found = stored.ask(
            {number: (self._question,) for number in range(len(samples)) if number not in stored.problems}
        )
        return [
            stored.problems[number] if number in stored.problems else math.exp(found[number][self._question][0])
            for number in range(len(samples))
        ]


def has_thoughts_about_media(sample: Sample) -> bool:
    """Return whether a conversation has images or videos, and its last answer has thoughts."""
    return bool(sample.media) and bool(_thoughts(sample))


def thoughts_as_answer(sample: Sample) -> Sample:
    """Return the conversation with the thoughts before its last answer as the text of this answer. Chat formats leave
    out thoughts once a question follows."""
    return replace(sample, turns=(*sample.turns[:-1], Turn("assistant", (Text(_thoughts(sample)),), train=True)))


def _thoughts(sample: Sample) -> str:
    return RowView(sample).answers[-1].thoughts


def open_thoughts_judge(context: RunContext) -> ThoughtsJudge | None:
    """Return the judge that the settings name, or None without one. Weights are loaded when they are first needed."""
    config = context.config
    assert isinstance(config, SampleConfig)
    checks = config.sample.check_thoughts
    if checks.use == "off":
        return None
    store = JudgementStore(config.cache_folder, "sample.check_thoughts.use to off")
    return ThoughtsJudge(_engine(context, config), checks.prompt, store)


def _engine(context: RunContext, config: SampleConfig) -> Engine:
    if config.sample.engine == "endpoint":
        return EndpointEngine(Endpoint(config.sample.endpoint, "sample.endpoint"))
    model = causal_model(config, context.family, context.processor, context.renderer, context.precision, context.device)
    return CausalEngine(model, MAX_TOKENS, config.data.workers)
