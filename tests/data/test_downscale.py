"""Downscaled media have whole tokens, the requested scale, and the largest scale that fits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.render.downscale import largest_share, shrunk

MERGE = 2
sides = st.integers(1, 120)
shares = st.floats(1e-5, 1)


def picture(height: int, width: int, patch: int = 14) -> PictureSize:
    """Return the sizes of an image whose sides are given in tokens."""
    resized = (height * patch * MERGE, width * patch * MERGE)
    return PictureSize((480, 640), resized, (1, height * MERGE, width * MERGE), height * width)


@given(height=sides, width=sides, patch=st.sampled_from([14, 16]), share=shares, more=st.floats(1, 3))
def test_whole_tokens_at_most_the_share_and_at_least_one(height, width, patch, share, more):
    whole = picture(height, width, patch)
    size = shrunk(whole, share, MERGE)
    tokens = tuple(side // MERGE for side in size.grid[1:])
    assert size == picture(*tokens, patch)
    assert 1 <= size.tokens <= max(1, share * whole.tokens)
    assert size.tokens <= shrunk(whole, min(1.0, share * more), MERGE).tokens
    assert shrunk(whole, 1.0, MERGE) == whole
    assert shrunk(whole, 1e-9, MERGE).tokens == 1
    if min(tokens) >= 4:
        wanted, got = width / height, tokens[1] / tokens[0]
        assert abs(np.log(got / wanted)) < np.log(5 / 4)


@given(height=sides, width=sides, share=shares)
def test_a_clip_keeps_its_frames_and_their_times(height, width, share):
    frame = picture(height, width)
    seconds = (0.25, 1.25, 2.25)
    whole = ClipSize(
        frame.original, frame.resized, (3, *frame.grid[1:]), 3 * frame.tokens, (0, 5, 10, 15, 20, 25), 10, 2, seconds
    )
    size, still = shrunk(whole, share, MERGE), shrunk(frame, share, MERGE)
    assert (size.resized, size.grid, size.tokens) == (still.resized, (3, *still.grid[1:]), 3 * still.tokens)
    assert (size.frames, size.file_fps, size.sampled_fps, size.timestamps) == (whole.frames, 10, 2, seconds)


@pytest.mark.parametrize("words", [0, 900, 997, 999])
def test_the_largest_share_that_fits_is_found(words):
    asked = []

    def length(share: float) -> int:
        asked.append(share)
        return words + max(1, math.floor(share * 4000))

    share = largest_share(length, 1000)
    assert length(share) <= 1000
    assert length(share * (1 + 1 / 60)) > 1000
    assert len(asked) <= 16


def test_where_nothing_fits_the_smallest_share_is_taken():
    assert largest_share(lambda share: 1001, 1000) == 1 / 16384
