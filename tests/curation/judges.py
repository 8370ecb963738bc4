"""Settings of judgements, and judges of tiny models."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoProcessor

from qwenvl_train.curation.judging.causal import CausalEngine, CausalModel
from qwenvl_train.curation.judging.classes import read_tree
from qwenvl_train.curation.judging.engine import Engine
from qwenvl_train.curation.judging.judge import StoredJudge
from qwenvl_train.curation.judging.settings import JudgingSections
from qwenvl_train.curation.judging.store import JudgementStore
from qwenvl_train.curation.view import RowView
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.forward import use_packed_forward
from tests.conftest import sample_of
from tests.evaluation.test_generation import lively_model
from tests.loading import renderer_of

DEFAULTS = yaml.safe_load((Path(__file__).parent / "judging.yaml").read_text(encoding="utf-8"))


def sections_with(**changed: Any) -> JudgingSections:
    """The defaults with dotted keys replaced, whose dots are two underscores."""
    tree = deepcopy(DEFAULTS)
    for key, value in changed.items():
        *path, last = key.split("__")
        branch = tree
        for name in path:
            branch = branch[name]
        branch[last] = value
    return JudgingSections.model_validate(tree)


ALL = sections_with(classes__use="drop", scores__use="drop", needless_image__use="drop")


class Passes:
    """Counts the forward passes of a model, and what its vision tower is given."""

    def __init__(self, model: torch.nn.Module):
        self.tokens: list[int] = []
        self.grids: list[list[list[int]]] = []
        model.model.register_forward_hook(self._count_tokens, with_kwargs=True)
        model.model.visual.register_forward_hook(self._count_grids, with_kwargs=True)

    def _count_tokens(self, _module, _arguments, options, _output) -> None:
        self.tokens.append(options["input_ids"].shape[1])

    def _count_grids(self, _module, _arguments, options, _output) -> None:
        self.grids.append(options["grid_thw"].tolist())


def packed_model(checkpoint: Path, processor) -> torch.nn.Module:
    model = lively_model(checkpoint)
    use_packed_forward(model, processor.image_processor)
    use_packed_attention(model)
    return model.requires_grad_(False)


class TinyJudge:
    def __init__(self, checkpoint: Path, folder: Path, sections: JudgingSections, batch_tokens: int = 16384, **data):
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.renderer = renderer_of(self.processor, checkpoint, **data)
        self.loads = 0
        self.passes: Passes | None = None

        def load() -> torch.nn.Module:
            self.loads += 1
            model = packed_model(checkpoint, self.processor)
            self.passes = Passes(model)
            return model

        model = CausalModel(str(checkpoint), self.renderer, self.processor.tokenizer, load)
        self.engine: Engine = CausalEngine(model, batch_tokens, workers=1)
        self.judge = StoredJudge(
            self.engine, sections, read_tree(sections.classes.tree, "tree"), JudgementStore(folder)
        )

    def __call__(self, *rows: dict):
        return self.judge.judge([RowView(sample_of(row)) for row in rows])
