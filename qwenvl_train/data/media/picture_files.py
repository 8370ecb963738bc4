"""Open picture files: sizes from their headers, and whole pictures. This needs no torch."""

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from qwenvl_train.data.media.files import name_of, open_file
from qwenvl_train.data.sample import Content, Image
from qwenvl_train.errors import UserError

_ORIENTATION = 0x0112
_TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}

# The errors that Pillow's readers raise for broken files; each reader raises other ones. The list was found by
# breaking files of every format.
_FAULTS = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
    Pillow.DecompressionBombError,
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def upright_size(content: Content, where: str) -> tuple[int, int]:
    """Return the height and width of a picture, upright, from the header of its file alone."""
    with open_picture(content, where) as picture:
        width, height = picture.size
        return (width, height) if _orientation(picture) in _SIDEWAYS else (height, width)


def load_picture(image: Image, where: str) -> Pillow.Image:
    """Return the whole picture in RGB, upright and in its original size. Transparent areas become white."""
    with open_picture(image.content, where) as picture:
        # The orientation is read before decoding, because decoding may find one behind the pixels, which `measure`,
        # reading only what comes before the pixels, did not see.
        turn = _TURNS.get(_orientation(picture))
        rgb = _as_rgb(picture)
        rgb.load()
        return rgb if turn is None else rgb.transpose(turn)


@contextmanager
def open_picture(content: Content, where: str) -> Iterator[Pillow.Image]:
    """Open a picture and read its header, but not its pixels. Errors in the file that occur within the block are raised
    as UserError."""
    name = name_of(content, "image", where)
    with open_file(content, name) as file:
        try:
            picture = _opened(file, name)
            # Pillow itself only warns until twice its limit.
            if is_huge(*picture.size):
                raise Pillow.DecompressionBombError
            if picture.format == "EPS":
                # Pillow would have Ghostscript run it.
                raise UserError(f"{name} is in EPS format, which is a program. Convert it to PNG.")
        except Pillow.DecompressionBombError:
            raise UserError(
                f"{name} has more than {Pillow.MAX_IMAGE_PIXELS} pixels, like a decompression bomb. "
                "Make it smaller or remove the row."
            ) from None
        except UnidentifiedImageError:
            raise UserError(
                f"{name} is not an image in a supported format, such as JPEG, PNG or WebP, or it is damaged. Replace "
                "it."
            ) from None
        except _FAULTS as error:
            raise UserError(f"{name} cannot be opened: {error}. Replace it.") from None
        try:
            yield picture
        except _FAULTS as error:
            raise UserError(f"{name} cannot be decoded: {error}. Replace it.") from None


def is_huge(height: int, width: int) -> bool:
    """Return whether a picture or frame has more pixels than Pillow takes for a photo."""
    return height * width > (Pillow.MAX_IMAGE_PIXELS or math.inf)


def _orientation(picture: Pillow.Image) -> int:
    """Return the orientation that the header states. Pillow's own method for a PNG would decode the whole picture to
    search for it behind the pixels."""
    if picture.format == "TIFF":
        # Pillow turns TIFF pictures itself, and reports the size that they have afterwards.
        return 1
    return Pillow.Image.getexif(picture).get(_ORIENTATION, 1)


def _as_rgb(picture: Pillow.Image) -> Pillow.Image:
    """Convert a picture to RGB as the published processor does, except for grey of more than 8 bits, which Pillow would
    clip to white."""
    picture.load()
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I;16"):
        return Pillow.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError("its 32-bit values do not define which is white, unlike 8 or 16 bits")
    if "A" in picture.getbands() or "transparency" in picture.info:
        white = Pillow.new("RGBA", picture.size, (255, 255, 255, 255))
        return Pillow.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _opened(file: BinaryIO, name: str) -> Pillow.Image:
    """Open a picture of any format that Pillow reads, or HEIC. The package for HEIC is imported only when such a file
    is read. It turns pictures upright itself, and reports their size and orientation so."""
    try:
        return Pillow.open(file)
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(12)
        if start[4:8] != b"ftyp" or start[8:12] not in _HEIC_BRANDS:
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UserError(
            f"{name} is in HEIC format, which needs pillow-heif: pip install 'qwenvl-train[heic]', or convert it to "
            "JPEG or PNG."
        ) from None
    register_heif_opener()
    file.seek(0)
    return Pillow.open(file)
