"""The size of a step fits small data, and large data keep the largest size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.index.lengths import Lengths
from qwenvl_train.data.order.mixture import MixtureEntry
from qwenvl_train.data.order.order import build_order
from qwenvl_train.data.order.step_size import ENOUGH_STEPS, MicroStep, StepSize, fitting, steps_of_epoch
from tests.data.order.mixes import config_of, lengths_of, mix


def fit(lengths: Lengths, world: int = 1, entry: tuple = (None, None), **settings) -> tuple[RunConfig, int]:
    """Return the configuration with the size of a step that fits, and its number of steps in an epoch."""
    config = config_of(**{"packing": True, "max_length": 8192} | settings)
    entries = [MixtureEntry(0, len(lengths.tokens), *entry)]

    def order(config):
        return build_order(lengths, entries, lengths.usable, config, MicroStep.of(config, world))

    fitted = fitting(config, order(config), lengths, world).in_config(config)
    return fitted, steps_of_epoch(fitted, order(fitted), world)


def alike(samples: int, tokens: int) -> Lengths:
    return lengths_of(np.full(samples, tokens))


@pytest.mark.parametrize(
    ("samples", "expected", "steps"),
    [
        (640, (4, 8192), 20),  # 8 samples in a packed row, so 80 packed rows
        (639, (4, 8192), 20),  # 79 full packed rows and one that is not
        (632, (3, 8192), 27),
        (160, (1, 8192), 20),
        (126, (1, 6451), 21),  # 126 * 1,024 tokens in 20 steps
        (20, (1, 1024), 20),
        (3, (1, 1024), 3),  # a packed row holds the longest sample at least
    ],
)
def test_accumulation_falls_first_and_then_the_packed_rows_become_shorter(samples, expected, steps):
    config, found = fit(alike(samples, 1024))
    assert StepSize.of(config) == expected
    assert found == steps


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 400), st.integers(0, 9), st.integers(1, 3), st.integers(1, 3),
    st.sampled_from([(None, None), (None, 0.5), (None, 2.5)]), st.booleans(),
)  # fmt: skip
def test_an_epoch_has_enough_steps_unless_nothing_can_be_smaller(samples, seed, world, batch_size, entry, packing):
    lengths = mix("instructions", samples, 8192, seed)
    config, steps = fit(lengths, world, entry, batch_size=batch_size, packing=packing)
    smallest = StepSize(1, int(lengths.tokens.max()) if packing else None)
    assert steps >= ENOUGH_STEPS or StepSize.of(config) == smallest
    assert not packing or lengths.tokens.max() <= config.pack_length <= 8192


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"accumulation": 6}, (6, 1075)),
        ({"pack_length": 7000}, (1, 7000)),
        ({"accumulation": 4, "pack_length": 8192}, (4, 8192)),
    ],
)
def test_what_the_user_has_set_is_kept(given, expected):
    config, _ = fit(alike(126, 1024), **given)
    assert StepSize.of(config) == expected


def test_every_process_counts():
    assert StepSize.of(fit(alike(640, 1024), world=2)[0]) == (2, 8192)
    assert StepSize.of(fit(alike(640, 1024), world=8)[0]) == (1, 640 * 1024 // 160)


def test_samples_that_cannot_be_used_do_not_count():
    lengths = lengths_of(np.where(np.arange(640) < 126, 1024, 0))
    assert StepSize.of(fit(lengths)[0]) == (1, 6451)
