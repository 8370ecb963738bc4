"""M-RoPE positions of each token in time, height and width."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """A run of placeholder tokens: of one picture, of one clip, or of one frame pair if each frame pair has its own."""

    start: int
    """Index in the sample of the first placeholder token."""
    grid: tuple[int, int, int]
    """Number of patches in time, height and width."""
    step: float = 1
    """Distance between the layers of the grid on the temporal axis, in positions."""

    def tokens(self, merge: int) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2] // merge**2


def mrope_positions(length: int, spans: Sequence[Span], merge: int) -> np.ndarray:
    """Return the positions of `length` tokens as [4, length] int64: the token's index, then time, height and width.

    Text counts up on all three axes. Media span rows and columns of the grid, and its layers in time. The text after
    media continues above the largest position so far, as the models were trained.
    """
    positions = np.empty((4, length), dtype=np.int64)
    positions[0] = np.arange(length)
    token = position = 0
    for span in spans:
        text = span.start - token
        positions[1:, token : span.start] = np.arange(position, position + text)
        position += text
        layers, rows, columns = span.grid[0], span.grid[1] // merge, span.grid[2] // merge
        offsets = np.indices((layers, rows, columns)).reshape(3, -1)
        # Computed in float32 and truncated, not rounded, because the models were trained on torch's result.
        offsets[0] = (offsets[0].astype(np.float32) * np.float32(span.step)).astype(np.int64)
        token = span.start + offsets.shape[1]
        positions[1:, span.start : token] = offsets + position
        position += int(offsets.max()) + 1
    positions[1:, token:] = np.arange(position, position + length - token)
    return positions
