"""What the steps of a run compute, from the lengths of its samples and their order."""

from collections.abc import Iterable

import numpy as np
from transformers import PreTrainedConfig

from qwenvl_train.batch import Contents
from qwenvl_train.config.schema import COMPONENTS, TWO_MODELS, RunConfig
from qwenvl_train.data.batches.loader import Rows, contents_of
from qwenvl_train.data.index.lengths import Lengths
from qwenvl_train.data.order.order import Order
from qwenvl_train.data.render.layout import Layout
from qwenvl_train.model.components import mode_of
from qwenvl_train.model.flops import FlopCount, Flops
from qwenvl_train.planning.memory import Load

LOOKED = 512
"""Approximate number of samples on which arithmetic is counted. Their layout is computed again, because the index does
not hold the sides of pictures."""


def flop_count(config: RunConfig, architecture: PreTrainedConfig) -> FlopCount:
    """Return the counter of the operations of a run."""
    modes = {component: mode_of(component, config) for component in COMPONENTS}
    return FlopCount.of(
        architecture, modes, config.lora.rank, not config.train.cache_vision, config.reference in TWO_MODELS
    )


def largest_pass(lengths: Lengths, order: Order) -> Load:
    """Return the largest numbers of tokens, patches and supervised tokens in any pass of the first epoch."""
    return Load(*(order.largest(column) for column in (lengths.tokens, lengths.patches, lengths.supervised)))


def largest_sample(lengths: Lengths) -> Load:
    return Load(*(int(column.max()) for column in (lengths.tokens, lengths.patches, lengths.supervised)))


def looked_at(rows: Rows, order: Order) -> Iterable[list[Layout]]:
    """Yield the layouts of the samples of some packed rows, which are spread over an epoch."""
    per_epoch = order.rows(1)
    each = max(1, len(order.row(0)))
    step = max(1, per_epoch * each // LOOKED)
    for row in range(0, per_epoch, step):
        yield [rows.renderer.layout(rows.samples[index]) for index in order.row(row).tolist()]


def flops_of_step(count: FlopCount, looked: Iterable[list[Layout]], tokens: float) -> Flops:
    """Return the floating-point operations of a step that has `tokens` tokens on average, in samples like those of
    `looked`."""
    return _times(_per_token(count, map(contents_of, looked)), tokens)


def _per_token(count: FlopCount, rows: Iterable[Contents]) -> np.ndarray:
    """Return the floating-point operations per token of vision tower, merger and language model. The shape is [3]."""
    tokens, sums = 0, np.zeros(3)
    for contents in rows:
        tokens += sum(contents.lengths)
        sums += np.array(count.training(contents), dtype=float)
    return sums / tokens


def _times(flops: Iterable[float], factor: float) -> Flops:
    return Flops(*(round(part * factor) for part in flops))
