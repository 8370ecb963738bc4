"""M-RoPE: where each token stands in time, height and width."""

import numpy as np


def mrope_positions(length: int, media: list[tuple[int, tuple[int, int, int]]], merge: int) -> np.ndarray:
    """[4, length]. `media` holds where each picture's placeholders start, and its grid in patches.

    Text counts up on all three axes. A picture's tokens share one time step and span rows and columns;
    the text after it goes on from the largest of them.
    """
    positions = np.empty((4, length), dtype=np.int64)
    positions[0] = np.arange(length)
    token = position = 0
    for start, (time, rows, columns) in media:
        text = start - token
        positions[1:, token:start] = np.arange(position, position + text)
        position += text
        spans = np.indices((time, rows // merge, columns // merge)).reshape(3, -1)
        token = start + spans.shape[1]
        positions[1:, start:token] = spans + position
        position += max(rows, columns) // merge
    positions[1:, token:] = np.arange(position, position + length - token)
    return positions
