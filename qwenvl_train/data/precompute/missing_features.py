"""Which media of some rows have no stored features yet; and those, decoded. Both are for workers to make."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from torch.utils.data import Dataset

from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.lengths import Problem, problem_of
from qwenvl_train.data.media.feature_cache import FeatureCache, Place
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Media
from qwenvl_train.errors import UserError

_CHUNK = 64
"""Samples that a worker lays out at a time."""


@dataclass(frozen=True)
class MissingFeatures:
    """A sample with media whose features are not stored, and that no sample before it has."""

    rows: int
    """Which of the rows it is from."""
    index: int
    media: tuple[int, ...]
    """Their numbers in the sample."""
    patches: int


class MissingPlaces(Dataset):
    """What a chunk of the samples lacks: of each medium its sample, its number there, and its place."""

    def __init__(self, rows: Sequence[Rows], features: FeatureCache, samples: Sequence[tuple[int, int]]):
        self._rows, self._features, self._samples = rows, features, samples

    def __len__(self) -> int:
        return ceil(len(self._samples) / _CHUNK)

    def __getitem__(self, chunk: int) -> tuple[list[tuple[int, int, int, Place]], int]:
        """And of how many samples."""
        samples = self._samples[chunk * _CHUNK : (chunk + 1) * _CHUNK]
        return [lacking for which, index in samples for lacking in self._of(which, index)], len(samples)

    def _of(self, which: int, index: int) -> Iterator[tuple[int, int, int, Place]]:
        rows = self._rows[which]
        try:
            sample = rows.samples[index]
            layout = rows.renderer.layout(sample)
            places = [self._features.place(*seen) for seen in zip(sample.media, layout.media, strict=True)]
        except (UserError, OSError):
            return  # changed since it was measured: the training meets it, and says so
        yield from ((which, index, at, place) for at, place in enumerate(places) if not self._features.holds(place))


@dataclass(frozen=True)
class Decoded:
    place: Place
    size: PictureSize | ClipSize
    planes: np.ndarray
    """No tensor, each of which would hold a file open on its way from a worker, and there may be thousands."""


class MissingMedia(Dataset):
    """Of each sample the media that are missing, decoded; and why one cannot be."""

    def __init__(self, rows: Sequence[Rows], features: FeatureCache, missing: Sequence[MissingFeatures]):
        self._rows, self._features, self._missing = rows, features, missing

    def __len__(self) -> int:
        return len(self._missing)

    def __getitem__(self, number: int) -> tuple[list[Decoded], Problem | None, int]:
        """And how many media were asked for."""
        asked = self._missing[number]
        rows, problem = self._rows[asked.rows], None
        decoded: list[Decoded] = []
        try:
            sample = rows.samples[asked.index]
            layout = rows.renderer.layout(sample)
        except UserError as error:
            return [], problem_of(rows.samples.place(asked.index), error), len(asked.media)
        for at in asked.media:
            try:
                decoded += self._decoded(rows.renderer, sample.media[at], layout.media[at], sample.where)
            except UserError as error:
                # Other samples may count on what comes after it in this one.
                problem = problem or problem_of(rows.samples.place(asked.index), error)
        return decoded, problem, len(asked.media)

    def _decoded(self, renderer: Renderer, media: Media, size: PictureSize | ClipSize, where: str) -> Iterator[Decoded]:
        try:
            place = self._features.place(media, size)
        except OSError:
            return  # deleted meanwhile: the training meets it, and says so
        if not self._features.holds(place):  # another run may be as far
            yield Decoded(place, size, renderer.planes(media, size, where))
