"""The pictures of samples, and the boxes and points that are drawn over them."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from qwenvl_train.reporting.reporter import Row


@dataclass(frozen=True)
class Shape:
    """A box or a point over a picture, in pixels of the original picture."""

    kind: str
    """Where it is from: expected, before or after."""
    name: str
    left: float
    top: float
    width: float
    height: float
    point: bool


def shape(kind: str, region: Row) -> Shape:
    """Return a region as it is drawn. A model may write the corners of a box in any order."""
    x, y, *corner = region["coordinates"]
    right, bottom = corner or (x, y)
    return Shape(
        kind, in_words(region), min(x, right), min(y, bottom), abs(right - x), abs(bottom - y), point=not corner
    )


def in_words(region: Row) -> str:
    numbers = ", ".join(f"{value:g}" for value in region["coordinates"])
    return f"{region['label']} [{numbers}]".lstrip()


def opened(path: str) -> Image.Image | None:
    """Return a picture as it is displayed, or None if it cannot be read."""
    try:
        with Image.open(Path(path)) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None


def smaller(picture: Image.Image, side: int) -> Image.Image:
    copy = picture.copy()
    copy.thumbnail((side, side))
    return copy
