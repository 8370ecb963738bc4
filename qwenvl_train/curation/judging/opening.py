"""Opens the judge that the settings name."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.curation.judging.by_endpoint import EndpointEngine
from qwenvl_train.curation.judging.causal import CausalEngine, CausalModel
from qwenvl_train.curation.judging.classes import Tree
from qwenvl_train.curation.judging.engine import Engine
from qwenvl_train.curation.judging.judge import StoredJudge
from qwenvl_train.curation.judging.reward_head import RewardEngine
from qwenvl_train.curation.judging.settings import JudgingSections, ScoresSection
from qwenvl_train.curation.judging.store import JudgementStore
from qwenvl_train.endpoint.client import Endpoint
from qwenvl_train.errors import UserError
from qwenvl_train.model.load import DTYPES


def open_judge(
    sections: JudgingSections, tree: Tree, cache: Path, config: RunConfig, model: Callable[[], CausalModel],
    precision: str, device: torch.device, key: str,
) -> StoredJudge:  # fmt: skip
    """Return the judge. Weights are loaded when they are first needed.

    Args:
        tree: The classes, which `read_tree` reads.
        cache: The folder of data.cache.
        model: Returns the model in `run` or model.path, for engine=model. See `causal_model`.
        key: The name of the section that has `sections`, for error messages.
    """
    if sections.classes.use != "off":
        for problem in problems_of_tree(tree, sections.scores, key):
            raise UserError(f"{problem}.")
    return StoredJudge(_engine(sections, config, model, precision, device, key), sections, tree, JudgementStore(cache))


def problems_of_tree(tree: Tree, scores: ScoresSection, key: str) -> Iterator[str]:
    """Yield a line for each class with a least value of a score that is not measured."""
    measured = {} if scores.use == "off" else scores.each
    for domain, classes in tree.items():
        for name, one in classes.items():
            for score in one.min:
                if score not in measured:
                    yield f"{key}.classes.tree: {domain}.{name}.min has {score}, which {key}.scores does not measure"


def _engine(
    sections: JudgingSections, config: RunConfig, model: Callable[[], CausalModel], precision: str,
    device: torch.device, key: str,
) -> Engine:  # fmt: skip
    judge = sections.judge
    match judge.engine:
        case "model":
            return CausalEngine(model(), judge.batch_tokens, config.data.workers)
        case "endpoint":
            return EndpointEngine(Endpoint(sections.endpoint, f"{key}.endpoint"))
        case "reward_head":
            assert judge.reward_path is not None
            head = config.model.model_copy(
                update={"path": judge.reward_path, "revision": None, "family": None, "quantize": "none", "shape": None}
            )
            return RewardEngine(head, f"{key}.judge.reward_path", DTYPES[precision], device, judge.batch_tokens)
