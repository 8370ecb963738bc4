"""From a picture file to uint8 patches. Floats are made on the device, so a picture travels once and in bytes."""

import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from qwenvl_train.errors import UserError

_ORIENTATION = 0x0112
_TURNED_BY_90 = {5, 6, 7, 8}


@dataclass(frozen=True)
class PixelSettings:
    """How a checkpoint's image processor cuts pictures."""

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
    resized: tuple[int, int]
    """Both height, width."""
    grid: tuple[int, int, int]
    tokens: int
    """Placeholders in the text, after merging."""


def measure(path: str, settings: PixelSettings, where: str) -> PictureSize:
    """From the file's header alone, without decoding."""
    with _opened(path, where) as picture:
        width, height = picture.size
        if _orientation(picture) in _TURNED_BY_90:
            width, height = height, width
    factor = settings.patch * settings.merge
    try:
        resized = smart_resize(height, width, factor, settings.min_pixels, settings.max_pixels)
    except ValueError:
        raise UserError(
            f"{where}: the picture {path} is {width}×{height} pixels; "
            "one side may be at most 200 times the other. Crop it or leave the row out."
        ) from None
    grid = (1, resized[0] // settings.patch, resized[1] // settings.patch)
    return PictureSize((height, width), resized, grid, grid[1] * grid[2] // settings.merge**2)


def load_patches(path: str, size: PictureSize, settings: PixelSettings, where: str) -> np.ndarray:
    """[patches, channels * patch * patch] uint8, in the order of Hugging Face's processor."""
    with _opened(path, where) as picture:
        try:
            upright = ImageOps.exif_transpose(picture) if _orientation(picture) != 1 else picture
            decoded = upright.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{where}: the picture {path} does not decode: {error}. Replace it.") from None
    pixels = F.resize(F.pil_to_tensor(decoded), list(size.resized), InterpolationMode.BICUBIC, antialias=True)
    return patchify(pixels.numpy(), settings)


def patchify(pixels: np.ndarray, settings: PixelSettings) -> np.ndarray:
    """[C, H, W] to [H/p * W/p, C*p*p]; the m×m patches that one token merges lie next to each other."""
    channels, height, width = pixels.shape
    p, m = settings.patch, settings.merge
    blocks = pixels.reshape(channels, height // (p * m), m, p, width // (p * m), m, p)
    return np.ascontiguousarray(blocks.transpose(1, 4, 2, 5, 0, 3, 6)).reshape(-1, channels * p * p)


def _orientation(picture: Pillow.Image) -> int:
    """As the header says it; asked outright, Pillow would decode a whole PNG to look for it behind the pixels."""
    known = "exif" in picture.info or picture.format == "TIFF"
    return picture.getexif().get(_ORIENTATION, 1) if known else 1


def _opened(path: str, where: str) -> Pillow.Image:
    try:
        with warnings.catch_warnings():
            # A picture over Pillow's warning size is refused too: it would take gigabytes.
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            return Pillow.open(path)
    except (OSError, Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise UserError(f"{where}: the picture {path} does not open: {error}") from None
