"""The sizes of images, and boxes inside them, as converters check them."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from qwenvl_train.data.media.picture_files import upright_size
from qwenvl_train.errors import UserError
from qwenvl_train.tasks.files import is_missing, no_medium
from qwenvl_train.tasks.numbers import numbers

OUTSIDE = 2.0
"""How many pixels a box or a point may reach beyond its image. Rounded ones do so by one."""


@lru_cache(maxsize=4096)
def size_of(image: Path) -> tuple[int, int]:
    """Return the width and height of an image as it is displayed."""
    if is_missing(image):
        raise no_medium(image)
    height, width = upright_size(str(image), str(image))
    return width, height


def scale_of(told: Sequence[Any], size: tuple[int, int]) -> tuple[float, float]:
    """Return the factors from the width and height that a source tells for an image to those of its file. An image
    whose size the source does not tell is taken to have that of the file.

    Raises:
        UserError: If the image is another one or was turned or cut: the sides have other ratios, beyond rounding.
    """
    if all(side is None for side in told):
        return 1.0, 1.0
    width, height = numbers(told, 2, "its size", "width and height")
    if min(width, height) < 1:
        raise UserError(f"its size is {width:g}×{height:g} pixels; expected width and height")
    across, down = size[0] / width, size[1] / height
    if abs(across / down - 1) > 1 / min(width, height, *size):
        raise UserError(f"its file has {size[0]}×{size[1]} pixels, not the {width:g}×{height:g} of the source")
    return across, down


def inside(box: Sequence[float], size: tuple[int, int], what: str) -> tuple[float, float, float, float]:
    """Return a box without the pixels by which it reaches beyond its image, rounded to hundredths.

    Raises:
        UserError: If it reaches further, has no area, is in fractions of the image, or is not of four finite numbers.
    """
    x1, y1, x2, y2 = numbers(box, 4, what)
    width, height = size
    shown = ", ".join(f"{value:g}" for value in box)
    if min(x1, y1) < -OUTSIDE or x2 > width + OUTSIDE or y2 > height + OUTSIDE:
        raise UserError(f"{what} [{shown}] is not inside its image of {width}×{height} pixels")
    if max(x1, y1, x2, y2) <= 1 < min(width, height):
        raise UserError(f"{what} [{shown}] is inside the first pixel; expected pixels, not fractions of the image")
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if not (x1 < x2 and y1 < y2):
        raise UserError(f"{what} [{shown}] has no area")
    return round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)


def middle(box: Sequence[float]) -> tuple[float, float]:
    return round((box[0] + box[2]) / 2, 2), round((box[1] + box[3]) / 2, 2)
