"""Convert a picture file to uint8 patches. They become floats on the device, so a picture is copied there as bytes."""

import math
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from qwenvl_train.data.media.files import name_of, open_file
from qwenvl_train.data.media.picture_cache import PictureCache
from qwenvl_train.data.sample import Content, Image, Limits
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
_LOW_DETAIL = 512 * 512
_LEAST_TOKENS = 4
"""The least number of tokens of a picture in qwen-vl-utils, which knows no checkpoint's minimum."""
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


@dataclass(frozen=True)
class PixelSettings:
    """The settings by which a checkpoint's image processor cuts pictures into patches."""

    patch: int
    merge: int
    min_pixels: int
    max_pixels: int

    @classmethod
    def of(cls, image_processor) -> "PixelSettings":
        return cls(
            patch=image_processor.patch_size,
            merge=image_processor.merge_size,
            min_pixels=image_processor.size["shortest_edge"],
            max_pixels=image_processor.size["longest_edge"],
        )


@dataclass(frozen=True)
class PictureSize:
    original: tuple[int, int]
    """The height and width of the picture, upright."""
    resized: tuple[int, int]
    """The height and width of the resized picture, upright."""
    grid: tuple[int, int, int]
    """The number of patches in time (always 1), height and width."""
    tokens: int
    """The number of placeholders in the text, after merging."""


def measure(image: Image, settings: PixelSettings, where: str) -> PictureSize:
    """Return the size of a picture, from the header of its file alone, without decoding."""
    original = upright_size(image.content, where)
    resized = _resized(original, image, settings, name_of(image.content, "image", where))
    grid = (1, resized[0] // settings.patch, resized[1] // settings.patch)
    return PictureSize(original, resized, grid, grid[1] * grid[2] // settings.merge**2)


def upright_size(content: Content, where: str) -> tuple[int, int]:
    """Return the height and width of a picture, upright, from the header of its file alone."""
    with open_picture(content, where) as picture:
        width, height = picture.size
        return (width, height) if _orientation(picture) in _SIDEWAYS else (height, width)


def load_patches(
    image: Image, size: PictureSize, settings: PixelSettings, where: str, cache: PictureCache | None = None
) -> np.ndarray:
    """Return [patches, patch * patch * channels] uint8, with the patches in the order of Hugging Face's processor."""

    def make() -> np.ndarray:
        return patchify(load_pixels(image, size, where), settings.patch, settings.merge)

    if cache is None:
        return make()
    return cache.patches(image.content, size.resized, settings.patch, settings.merge, make)


def load_pixels(image: Image, size: PictureSize, where: str) -> np.ndarray:
    """Return the resized picture, [height, width, 3] uint8, upright. Transparent areas become white."""
    decoded = F.pil_to_tensor(load_picture(image, where))
    # In this layout, with the colours of a pixel next to each other, torch resizes twice as fast as plane by plane.
    resized = F.resize(decoded, list(size.resized), InterpolationMode.BICUBIC, antialias=True)
    return resized.permute(1, 2, 0).numpy()


def load_picture(image: Image, where: str) -> Pillow.Image:
    """Return the whole picture in RGB, upright and in its original size. Transparent areas become white."""
    with open_picture(image.content, where) as picture:
        # The orientation is read before decoding, because decoding may find one behind the pixels, which `measure`,
        # reading only what comes before the pixels, did not see.
        turn = _TURNS.get(_orientation(picture))
        rgb = _as_rgb(picture)
        rgb.load()
        return rgb if turn is None else rgb.transpose(turn)


def patchify(pixels: np.ndarray, patch: int, merge: int) -> np.ndarray:
    """Cut [H, W, C] pixels into [H/p * W/p, p*p*C] patches. The m×m patches that one token merges lie next to each
    other."""
    height, width, channels = pixels.shape
    p, m = patch, merge
    # Each line of a patch is copied as one piece.
    blocks = pixels.reshape(height // (p * m), m, p, width // (p * m), m, p * channels)
    return np.ascontiguousarray(blocks.transpose(0, 3, 1, 4, 2, 5)).reshape(-1, p * p * channels)


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


def _resized(original: tuple[int, int], image: Image, settings: PixelSettings, name: str) -> tuple[int, int]:
    limits = image.limits
    factor = settings.patch * settings.merge
    requested = requested_size(limits, factor)
    if requested is not None:
        (height, width), is_or_becomes = requested, "would be"
        low, high = factor**2, sys.maxsize
    else:
        (height, width), is_or_becomes = original, "is"
        low, high = limits.min_pixels or settings.min_pixels, limits.max_pixels or settings.max_pixels
        if image.detail == "low":
            high = min(high, _LOW_DETAIL)
        if low > high and limits.min_pixels is None:
            low = _LEAST_TOKENS * factor**2
            if low > high:
                raise UserError(
                    f"{name} has max_pixels {high}, but an image has {low} pixels or more, which are {_LEAST_TOKENS} "
                    "tokens; raise max_pixels, or set min_pixels in the row, too."
                )
        if low > high:
            raise UserError(
                f"{name} has min_pixels {low} above max_pixels {high}; limits that are not in the row are the model's."
            )
    try:
        height, width = smart_resize(height, width, factor, low, high)
    except ValueError:
        raise UserError(
            f"{name} {is_or_becomes} {width}×{height} pixels; "
            "one side may be at most 200 times the other. Crop it or remove the row."
        ) from None
    refuse_huge(height, width, name)
    return height, width


def is_huge(height: int, width: int) -> bool:
    """Return whether a picture or frame has more pixels than Pillow takes for a photo."""
    return height * width > (Pillow.MAX_IMAGE_PIXELS or math.inf)


def refuse_huge(height: int, width: int, name: str) -> None:
    """Raise UserError if a row or a setting asks for a size that would fill the memory."""
    if is_huge(height, width):
        raise UserError(
            f"{name} would be resized to {width}×{height} pixels, more than {Pillow.MAX_IMAGE_PIXELS}; lower "
            "resized_height, resized_width or min_pixels."
        )


def requested_size(limits: Limits, factor: int) -> tuple[int, int] | None:
    """Return the height and width that a row requests, rounded to whole tokens, or None. They are not brought within
    the model's limits."""
    if limits.resized_height is None or limits.resized_width is None:
        return None
    return max(1, round(limits.resized_height / factor)) * factor, max(1, round(limits.resized_width / factor)) * factor


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
