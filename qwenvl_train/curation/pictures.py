"""What rules and the search for duplicates know of a picture. Each picture is decoded at most once, when one of them
asks for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from qwenvl_train.data.media.picture_files import load_picture, upright_size
from qwenvl_train.data.sample import Image
from qwenvl_train.errors import UserError, message_of

if TYPE_CHECKING:
    import numpy as np

# The side of the pictures that ImageHash computes its hash of.
_SIDE = 32


@dataclass(frozen=True)
class Decoded:
    """What is kept of a decoded picture."""

    thumbnail: "np.ndarray"
    """[32, 32] uint8, the picture in grey."""
    deviation: float
    """The largest standard deviation of red, green and blue in a picture of 32 × 32, on a scale from 0 to 255."""


@dataclass(frozen=True)
class PictureFacts:
    """The facts about one picture."""

    image: Image
    where: str
    """The name of the row."""

    @property
    def size(self) -> tuple[int, int] | None:
        """The height and width of the upright picture, from the header alone. None if it cannot be read."""
        return self._header if isinstance(self._header, tuple) else None

    @property
    def problem(self) -> str:
        """Why the picture cannot be decoded, without the name of the row. Empty if it can be."""
        if isinstance(self._decoded, Decoded):
            return ""
        return self._decoded.removeprefix(f"{self.where}: ")

    @property
    def thumbnail(self) -> "np.ndarray | None":
        """[32, 32] uint8, the picture in grey. None if it cannot be decoded."""
        return self._decoded.thumbnail if isinstance(self._decoded, Decoded) else None

    @property
    def deviation(self) -> float | None:
        """How much the colours of the picture differ: the largest standard deviation of red, green and blue in a
        picture of 32 × 32, from 0 to 255. None if the picture cannot be decoded."""
        return self._decoded.deviation if isinstance(self._decoded, Decoded) else None

    @cached_property
    def hash(self) -> int | None:
        """The 64 bits of ImageHash's phash, the first of which is the highest. None if the picture cannot be
        decoded."""
        if self.thumbnail is None:
            return None
        import imagehash
        from PIL import Image as Pillow

        # The hash is made of a grey picture of this size, so that of the thumbnail is that of the picture.
        return int(str(imagehash.phash(Pillow.fromarray(self.thumbnail))), 16)

    @cached_property
    def _header(self) -> tuple[int, int] | str:
        try:
            return upright_size(self.image.content, self.where)
        except UserError as error:
            return message_of(error)

    @cached_property
    def _decoded(self) -> Decoded | str:
        import numpy as np
        from PIL import Image as Pillow

        try:
            picture = load_picture(self.image, self.where)
        except UserError as error:
            return message_of(error)
        side = (_SIDE, _SIDE)
        thumbnail = np.asarray(picture.convert("L").resize(side, Pillow.Resampling.LANCZOS))
        colours = np.asarray(picture.resize(side, Pillow.Resampling.BOX))
        return Decoded(thumbnail, float(colours.reshape(-1, 3).std(axis=0).max()))


def as_facts(images: Iterable[Image], where: str) -> tuple[PictureFacts, ...]:
    """Return the facts about pictures of a row, none of which is opened yet."""
    return tuple(PictureFacts(image, where) for image in images)
