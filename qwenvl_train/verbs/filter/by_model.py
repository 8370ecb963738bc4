"""The judgements by a model: classes, scores, and pictures that the answers do not need."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from qwenvl_train.curation.judging.classes import Tree
from qwenvl_train.curation.judging.described import CLASSES, DESCRIBED, NEEDLESS_IMAGE, SCORES
from qwenvl_train.curation.judging.settings import JudgingSections
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.samples import Samples
from qwenvl_train.run.finished import with_checkpoint
from qwenvl_train.verbs.filter.judged import columns_of
from qwenvl_train.verbs.filter.settings import FilterConfig, FilterSection

if TYPE_CHECKING:
    from accelerate import PartialState

    from qwenvl_train.curation.judging.judge import Judge, Judgement

CLASS, PROBLEM, MEAN_SCORE = "class", "not_judged", "mean_score"
"""Further columns: the domain and class of a row, why a model could not judge it, and the mean of its scores."""
SCORE = "score."
"""The beginning of the names of columns with scores."""


def model_rules(sections: JudgingSections) -> tuple[str, ...]:
    """Return the names of the judgements by a model that are not off. Classes are last, since rows that fall to another
    rule do not count for their limits."""
    return tuple(one.name for one in DESCRIBED if getattr(sections, one.name).use != "off")


@dataclass(frozen=True)
class ModelJudge:
    judge: "Judge"
    """It has an `identity`, which changes when its judgements may."""
    tree: Tree
    section: FilterSection

    @property
    def identity(self) -> str:
        return digest(self.judge.identity)

    def table(self, samples: Samples, rows: Sequence[int], left_out: Sequence[bool]) -> pa.Table:
        """Return the judgements about some rows. Those that are left out already are not judged."""
        asked = [row for row, out in zip(rows, left_out, strict=True) if not out]
        found = dict(zip(asked, self.judge.judge([RowView(samples[row]) for row in asked]), strict=True))
        return self._table([found.get(row) for row in rows])

    def _table(self, judgements: "Sequence[Judgement | None]") -> pa.Table:
        from qwenvl_train.curation.judging.verdicts import mean_score

        columns: dict[str, pa.Array] = {}
        for rule, verdicts in self._verdicts(judgements):
            columns |= columns_of(verdicts, rule)
        assigned = [one and one.assigned for one in judgements]
        names = [found and f"{found.domain}/{found.name}" for found in assigned]
        columns[CLASS] = pa.array(names, pa.string())
        for name in self.section.scores.each if self.section.scores.use != "off" else ():
            scores = [one.scores.get(name) if one else None for one in judgements]
            columns[SCORE + name] = pa.array(scores, pa.float32())
        columns[MEAN_SCORE] = pa.array([mean_score(one) if one else None for one in judgements], pa.float32())
        columns[PROBLEM] = pa.array([one.problem if one else None for one in judgements], pa.string())
        return pa.table(columns)

    def _verdicts(self, judgements: "Sequence[Judgement | None]") -> Iterator[tuple[str, list[Verdict | None]]]:
        from qwenvl_train.curation.judging.verdicts import of_class, of_picture, of_scores

        section, tree = self.section, self.tree
        of_rule = {
            CLASSES: lambda one: of_class(one, tree),
            SCORES: lambda one: of_scores(one, section.scores, tree),
            NEEDLESS_IMAGE: lambda one: of_picture(one, section.needless_image),
        }
        for rule in model_rules(section):
            yield rule, [of_rule[rule](one) if one and one.problem is None else None for one in judgements]


def open_model_judge(config: FilterConfig, tree: Tree, state: "PartialState") -> ModelJudge:
    """Open the judge that the settings name. Weights are loaded when they are first needed."""
    from qwenvl_train.curation.judging.causal import CausalModel, causal_model
    from qwenvl_train.curation.judging.opening import open_judge
    from qwenvl_train.model.pretrained import load_family
    from qwenvl_train.model.processor import load_processor
    from qwenvl_train.run.rows import make_renderer
    from qwenvl_train.training.distributed.processes import choose_precision

    config = with_checkpoint(config)
    precision = choose_precision(config)

    def model() -> CausalModel:
        family = load_family(config.model)
        processor = load_processor(config.model, family)
        renderer = make_renderer(config, processor, family)
        return causal_model(config, renderer.family, processor, renderer, precision, state.device)

    judge = open_judge(config.filter, tree, config.cache_folder, config, model, precision, state.device, "filter")
    return ModelJudge(judge, tree, config.filter)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
