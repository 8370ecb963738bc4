"""Datasets of the media without stored features: their files in the cache, and their decoded planes. For workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from torch.utils.data import Dataset

from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.lengths import Problem, problem_of
from qwenvl_train.data.media.feature_cache import FeatureCache, FeatureFile
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Media
from qwenvl_train.errors import UserError

_CHUNK = 64
"""Number of samples that a worker lays out at a time."""


@dataclass(frozen=True)
class MissingFeatures:
    """A sample with media whose features are not stored and that occur in no earlier sample."""

    rows: int
    """Index of the Rows object that the sample is from."""
    index: int
    """Index of the sample in it."""
    media: tuple[int, ...]
    """Indices of these media in the sample."""
    patches: int


class MissingFeatureFiles(Dataset):
    """The media without stored features, by chunks of `samples`, which are given as (index of the Rows, sample)."""

    def __init__(self, rows: Sequence[Rows], features: FeatureCache, samples: Sequence[tuple[int, int]]):
        self._rows, self._features, self._samples = rows, features, samples

    def __len__(self) -> int:
        return ceil(len(self._samples) / _CHUNK)

    def __getitem__(self, chunk: int) -> tuple[list[tuple[int, int, int, FeatureFile]], int]:
        """Return the chunk's missing media and its number of samples.

        Each medium is given as (index of the Rows, sample, index in the sample, file in the cache).
        """
        samples = self._samples[chunk * _CHUNK : (chunk + 1) * _CHUNK]
        return [missing for number, index in samples for missing in self._of(number, index)], len(samples)

    def _of(self, number: int, index: int) -> Iterator[tuple[int, int, int, FeatureFile]]:
        rows = self._rows[number]
        try:
            sample = rows.samples[index]
            layout = rows.renderer.layout(sample)
            files = [self._features.file_of(*measured) for measured in zip(sample.media, layout.media, strict=True)]
        except (UserError, OSError):
            return  # changed since it was measured; training encounters the error and reports it
        yield from ((number, index, at, file) for at, file in enumerate(files) if not self._features.holds(file))


@dataclass(frozen=True)
class Decoded:
    """A decoded picture or clip, with the file where its features will be stored."""

    file: FeatureFile
    size: PictureSize | ClipSize
    planes: np.ndarray
    """The planes. An array, because each tensor on its way from a worker holds a file open, and there may be
    thousands."""


class MissingMedia(Dataset):
    """The decoded missing media of each sample."""

    def __init__(self, rows: Sequence[Rows], features: FeatureCache, missing: Sequence[MissingFeatures]):
        self._rows, self._features, self._missing = rows, features, missing

    def __len__(self) -> int:
        return len(self._missing)

    def __getitem__(self, number: int) -> tuple[list[Decoded], Problem | None, int]:
        """Return the decoded media of a sample, the first problem if one could not be decoded, and the number of media
        that were asked for."""
        missing = self._missing[number]
        rows, problem = self._rows[missing.rows], None
        decoded: list[Decoded] = []
        try:
            sample = rows.samples[missing.index]
            layout = rows.renderer.layout(sample)
        except UserError as error:
            return [], problem_of(rows.samples.origin(missing.index), error), len(missing.media)
        for at in missing.media:
            try:
                decoded += self._decoded(rows.renderer, sample.media[at], layout.media[at], sample.where)
            except UserError as error:
                # Decoding continues, because other samples may rely on the later media of this one.
                problem = problem or problem_of(rows.samples.origin(missing.index), error)
        return decoded, problem, len(missing.media)

    def _decoded(self, renderer: Renderer, media: Media, size: PictureSize | ClipSize, where: str) -> Iterator[Decoded]:
        try:
            file = self._features.file_of(media, size)
        except OSError:
            return  # deleted in the meantime; training encounters the error and reports it
        if not self._features.holds(file):  # another run may have stored it by now
            yield Decoded(file, size, renderer.planes(media, size, where))
