"""Convert a picture file to uint8 patches. They become floats on the device, so a picture is copied there as bytes."""

import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from qwenvl_train.data.media.files import name_of
from qwenvl_train.data.media.picture_cache import PictureCache
from qwenvl_train.data.media.picture_files import is_huge, load_picture, upright_size
from qwenvl_train.data.sample import Image, Limits
from qwenvl_train.errors import UserError

_LOW_DETAIL = 512 * 512
_LEAST_TOKENS = 4
"""The least number of tokens of a picture in qwen-vl-utils, which knows no checkpoint's minimum."""


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


def patchify(pixels: np.ndarray, patch: int, merge: int) -> np.ndarray:
    """Cut [H, W, C] pixels into [H/p * W/p, p*p*C] patches. The m×m patches that one token merges lie next to each
    other."""
    height, width, channels = pixels.shape
    p, m = patch, merge
    # Each line of a patch is copied as one piece.
    blocks = pixels.reshape(height // (p * m), m, p, width // (p * m), m, p * channels)
    return np.ascontiguousarray(blocks.transpose(0, 3, 1, 4, 2, 5)).reshape(-1, p * p * channels)


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
