"""What every sample costs, known before the run without decoding a picture, and every row checked on the way."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qwenvl_train.data.render import Renderer
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError


@dataclass(frozen=True)
class Lengths:
    tokens: np.ndarray
    supervised: np.ndarray
    pictures: np.ndarray
    """Each [samples]."""


def measure_all(
    samples: Samples, renderer: Renderer, max_length: int | None, progress: Callable[[int], None]
) -> Lengths:
    """Raises a UserError for the first row that is broken or longer than max_length."""
    table = np.empty((3, len(samples)), dtype=np.int32)
    for index in range(len(samples)):
        sample = samples[index]
        layout = renderer.layout(sample)
        if layout.supervised == 0:
            raise UserError(f"{sample.where} has no supervised token: its answers are empty.")
        if max_length is not None and layout.length > max_length:
            raise UserError(
                f"{sample.where} is {layout.length} tokens long, data.max_length is {max_length}; "
                "raise it, lower model.max_pixels, or leave the row out."
            )
        table[:, index] = layout.length, layout.supervised, len(layout.pictures)
        progress(index + 1)
    return Lengths(*table)
