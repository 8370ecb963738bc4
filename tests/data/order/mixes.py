"""Lengths as in real datasets, and orders over them."""

from functools import cache
from typing import Any

import numpy as np

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.index.lengths import Lengths
from qwenvl_train.data.order.mixture import MixtureEntry
from qwenvl_train.data.order.order import Order, build_order
from qwenvl_train.data.order.step_size import MicroStep
from tests.settings import run_config

MIXES = ("chat", "instructions", "pictures and text", "one size", "documents and text", "clips", "uniform", "long tail")


def lengths_of(tokens: np.ndarray, patches: np.ndarray | None = None) -> Lengths:
    tokens = tokens.astype(np.int32)
    zeros = np.zeros_like(tokens)
    return Lengths(tokens, tokens // 3, zeros if patches is None else patches.astype(np.int32), zeros, zeros, zeros)


def mix(name: str, samples: int, longest: int, seed: int = 0) -> Lengths:
    rng = np.random.default_rng(seed)

    def around(middle: int, spread: float) -> np.ndarray:
        return rng.lognormal(np.log(middle), spread, samples)

    pictured = rng.random(samples) < 0.6
    none = np.zeros(samples)
    text, visual = {
        "chat": lambda: (around(60, 0.8), none),
        "instructions": lambda: (around(350, 1.0), none),
        "pictures and text": lambda: (
            np.where(pictured, around(150, 0.8), around(350, 1.0)),
            pictured * rng.choice([256, 576, 1024, 1230], samples) * rng.integers(1, 3, samples),
        ),
        "one size": lambda: (around(90, 0.6), 1230 * (rng.random(samples) < 0.9)),
        "documents and text": lambda: (around(300, 0.8), pictured * rng.uniform(1500, 6000, samples)),
        "clips": lambda: (around(250, 1.0), (rng.random(samples) < 0.25) * rng.uniform(1500, 7500, samples)),
        "uniform": lambda: (rng.uniform(16, longest, samples), none),
        "long tail": lambda: (around(900, 1.3), none),
    }[name]()
    visual = visual.astype(np.int64)
    return lengths_of(np.clip(text + visual, 8, longest), 4 * visual)


@cache
def _defaults() -> RunConfig:
    return run_config()


def config_of(
    entries: int = 1,
    batch_size: int = 1,
    seed: int = 0,
    packing: bool = False,
    bucketing: bool = False,
    max_length: int | None = None,
    pack_length: int | str = "auto",
    accumulation: int | str = "auto",
) -> RunConfig:
    default = _defaults()
    settings = {
        "train": tuple(SourceConfig(path=f"{number}.jsonl") for number in range(entries)),
        "packing": packing,
        "bucketing": bucketing,
        "max_length": max_length,
        "pack_length": pack_length,
    }
    return default.model_copy(
        update={
            "seed": seed,
            "data": default.data.model_copy(update=settings),
            "train": default.train.model_copy(update={"batch_size": batch_size, "accumulation": accumulation}),
        }
    )


def order_of(
    lengths: Lengths,
    *,
    entries: list[MixtureEntry] | None = None,
    usable: np.ndarray | None = None,
    world: int = 1,
    balanced_for: tuple[int, int] | None = None,
    **settings: Any,
) -> Order:
    entries = [MixtureEntry(0, len(lengths.tokens), None, None)] if entries is None else entries
    config = config_of(len(entries), **settings)
    micro_step = balanced_for or MicroStep.of(config, world)
    return build_order(lengths, entries, lengths.usable if usable is None else usable, config, micro_step)


def stream(order: Order, rows: int) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int32), *(order.row(index) for index in range(rows))])
