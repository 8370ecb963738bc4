"""The boxes and points of an answer: in which picture they lie, and a drawing of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from qwenvl_train.data.media.picture_files import load_picture
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.render.written import regions_in, written_regions
from qwenvl_train.data.sample import Image, Region, Sample
from qwenvl_train.families.family import Family

COLOURS = ("#e6194b", "#0072ff", "#008a3e", "#b8860b")


@dataclass(frozen=True)
class Grounding:
    regions: tuple[Region, ...] = ()
    """In pixels of the original picture. `image` is the number of the picture in the conversation, from 0."""
    picture: Image | None = None
    """The picture that the regions lie in. None without regions."""
    problem: str = ""
    """Why boxes and points that the answer has are not in `regions`."""

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {
                "kind": "box" if len(region.coordinates) == 4 else "point",
                "pixels": [round(value, 1) for value in region.coordinates],
                "label": region.label,
                "image": region.image,
            }
            for region in self.regions
        ]

    def in_words(self) -> list[str]:
        return [
            f"{'box' if len(region.coordinates) == 4 else 'point'} "
            f"{', '.join(f'{value:.0f}' for value in region.coordinates)}{f'  {region.label}' if region.label else ''}"
            for region in self.regions
        ]


def grounded(text: str, question: Sample, sizes: Sequence[PictureSize], family: Family) -> Grounding:
    """Return the boxes and points of the answer to a question. `sizes` are those of all pictures of the conversation.

    The numbers in an answer do not name their picture, so they are taken to lie in that of the last turn with pictures.
    """
    asked, number = 0, -1
    for turn in question.turns:
        if pictures := [part for part in turn.parts if isinstance(part, Image)]:
            asked, number = len(pictures), number + len(pictures)
    if not asked:
        return Grounding()
    if asked > 1:
        several = f"the answer has boxes or points, and does not say in which of the {asked} images of the question"
        return Grounding(problem=several if any(written_regions(text)) else "")
    size = sizes[number]
    # Numbers in brackets may be something else, unless they lie in the picture.
    found = regions_in(text, size, family, plain=False) or [
        region for region in regions_in(text, size, family, plain=True) if _inside(region, size)
    ]
    regions = tuple(replace(region, image=number) for region in found)
    return Grounding(regions, question.images[number] if regions else None)


def _inside(region: Region, size: PictureSize) -> bool:
    # A written number is rounded, so it may lie outside the picture by half a unit.
    sides = size.original
    within = all(-1 <= value <= sides[1 - index % 2] + 1 for index, value in enumerate(region.coordinates))
    x, y, *corner = region.coordinates
    return within and (not corner or (x < corner[0] and y < corner[1]))


def drawing(grounding: Grounding) -> Pillow.Image:
    """Return the original picture with the boxes and points and their labels."""
    assert grounding.picture is not None
    picture = load_picture(grounding.picture, "the answer").copy()
    draw = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 300))
    font = ImageFont.load_default(size=max(13, round(max(picture.size) / 36)))
    for number, region in enumerate(grounding.regions):
        colour = COLOURS[number % len(COLOURS)]
        x, y, *corner = map(round, region.coordinates)
        if corner:
            left, right = sorted((x, corner[0]))
            top, bottom = sorted((y, corner[1]))
            draw.rectangle((left, top, right, bottom), outline=colour, width=line)
        else:
            left, top, radius = x, y, 3 * line
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white", width=line)
        _write(draw, region.label, (left, top), colour, font, picture.size)
    return picture


def _write(
    draw: ImageDraw.ImageDraw, label: str, place: tuple[float, float], colour: str, font: Any, size: tuple[int, int]
) -> None:
    """Write a label above its place, or below where there is no room, on a ground of its colour."""
    if not label:
        return
    _, _, width, height = draw.textbbox((0, 0), label, font=font)
    width, height = width + 6, height + 4
    x = max(0, min(place[0], size[0] - width))
    y = place[1] - height if place[1] >= height else min(place[1], size[1] - height)
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 3, y + 1), label, fill="white", font=font)
