"""What a frozen vision tower gives for a picture or clip, kept on disk: it follows from the medium and the tower alone.

Kept are the states that go into the mergers, which may be trained: those of the last block and, where the family has
DeepStack, of the blocks that it taps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qwenvl_train.data.media.cache_files import holds, identity, place_in, read, write
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.sample import Media

# Goes up when the same medium comes to other features.
_RULE = 1


@dataclass(frozen=True)
class Tower:
    digest: str
    """The same where the same planes come to the same features."""
    levels: int
    """How many mergers there are, each with states of its own."""
    width: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Place:
    """Where the features of one medium are kept."""

    path: Path
    patches: int


@dataclass(frozen=True)
class FeatureCache:
    """Workers, processes and runs may share the folder."""

    folder: Path
    tower: Tower

    def place(self, media: Media, size: PictureSize | ClipSize) -> Place:
        """Raises an OSError where the medium's file is missing."""
        frames = size.frames if isinstance(size, ClipSize) else ()
        sources = [identity(content) for content in media.contents]
        facts = (_RULE, self.tower.digest, sources, size.resized, size.grid, frames)
        return Place(place_in(self.folder, facts), int(np.prod(size.grid)))

    def bytes_of(self, patches: int) -> int:
        return self.tower.levels * patches * self.tower.width * self.tower.dtype.itemsize

    def holds(self, place: Place) -> bool:
        return holds(place.path, self.bytes_of(place.patches))

    def read(self, place: Place) -> torch.Tensor | None:
        """[levels, patches, width]; None where they are not kept, or not whole."""
        kept = read(place.path, self.bytes_of(place.patches))
        if kept is None:
            # The next start would take a damaged file for whole.
            place.path.unlink(missing_ok=True)
            return None
        return torch.from_numpy(kept).view(self.tower.dtype).view(self.tower.levels, place.patches, self.tower.width)

    def write(self, place: Place, features: torch.Tensor) -> None:
        """`features` as `read` gives them."""
        write(place.path, features.contiguous().view(torch.uint8).numpy().reshape(-1))

    def blank(self, patches: int) -> torch.Tensor:
        """Of a picture that no token stands for."""
        return torch.zeros(self.tower.levels, patches, self.tower.width, dtype=self.tower.dtype)
