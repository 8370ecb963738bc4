"""Keep the features that a frozen vision tower computes for a medium on disk. They depend on the medium and the tower
alone.

The features are the states that go into the mergers, since the mergers may be trained. These are the states of the
last block and, when the family has DeepStack, of the blocks that DeepStack taps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qwenvl_train.data.cache_files import holds, identity, path_in, read, write
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.sample import Media

# Must be increased when the same medium yields other features than before.
_RULE = 1


@dataclass(frozen=True)
class Tower:
    digest: str
    """A digest of the tower. Towers with the same digest compute the same features from the same planes."""
    levels: int
    """The number of mergers, each of which has states of its own."""
    width: int
    dtype: torch.dtype


@dataclass(frozen=True)
class FeatureFile:
    """The file that holds the features of one medium, and the number of its patches."""

    path: Path
    patches: int


@dataclass(frozen=True)
class FeatureCache:
    """A cache of features in a folder, which workers, processes and runs may share."""

    folder: Path
    tower: Tower

    def file_of(self, media: Media, size: PictureSize | ClipSize) -> FeatureFile:
        """Return the file for the features of a medium. Raise OSError when the file of the medium is missing."""
        frames = size.frames if isinstance(size, ClipSize) else ()
        sources = [identity(content) for content in media.contents]
        facts = (_RULE, self.tower.digest, sources, size.resized, size.grid, frames)
        return FeatureFile(path_in(self.folder, facts), int(np.prod(size.grid)))

    def bytes_of(self, patches: int) -> int:
        return self.tower.levels * patches * self.tower.width * self.tower.dtype.itemsize

    def holds(self, file: FeatureFile) -> bool:
        return holds(file.path, self.bytes_of(file.patches))

    def read(self, file: FeatureFile) -> torch.Tensor | None:
        """Return the features, [levels, patches, width], or None when they are not in the cache or not whole."""
        cached = read(file.path, self.bytes_of(file.patches))
        if cached is None:
            # A damaged file is removed, because the next start would otherwise treat it as whole.
            file.path.unlink(missing_ok=True)
            return None
        return torch.from_numpy(cached).view(self.tower.dtype).view(self.tower.levels, file.patches, self.tower.width)

    def write(self, file: FeatureFile, features: torch.Tensor) -> None:
        """Write the features, which have the shape that `read` returns."""
        write(file.path, features.contiguous().view(torch.uint8).numpy().reshape(-1))

    def blank(self, patches: int) -> torch.Tensor:
        """Return the features, all zeros, of a picture that no token stands for."""
        return torch.zeros(self.tower.levels, patches, self.tower.width, dtype=self.tower.dtype)
