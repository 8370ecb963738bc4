"""M-RoPE: where each token stands in time, height and width."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """The placeholders of one picture, of one clip, or of one frame pair where each has its own."""

    start: int
    """Where they start in the row."""
    grid: tuple[int, int, int]
    """In patches."""
    step: float = 1
    """How far apart in time the grid's layers stand."""

    def tokens(self, merge: int) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2] // merge**2


def mrope_positions(length: int, spans: Sequence[Span], merge: int) -> np.ndarray:
    """[4, length]. Text counts up on all three axes; media span rows and columns, and layers in time; the text after
    them goes on above the largest position so far, as the models were trained.
    """
    positions = np.empty((4, length), dtype=np.int64)
    positions[0] = np.arange(length)
    token = position = 0
    for span in spans:
        text = span.start - token
        positions[1:, token : span.start] = np.arange(position, position + text)
        position += text
        layers, rows, columns = span.grid[0], span.grid[1] // merge, span.grid[2] // merge
        places = np.indices((layers, rows, columns)).reshape(3, -1)
        # In float32 and cut, not rounded: the models were trained on what torch made of it.
        places[0] = (places[0].astype(np.float32) * np.float32(span.step)).astype(np.int64)
        token = span.start + places.shape[1]
        positions[1:, span.start : token] = places + position
        position += int(places.max()) + 1
    positions[1:, token:] = np.arange(position, position + length - token)
    return positions
