"""Scenes of shapes and words at free places, for teaching a model to see them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image, ImageDraw

from samples.drawing import NAMES, WORDS, Box, Shape, Size, blank, extent, write

SIZES = ((128, 128), (128, 128), (96, 160), (160, 96), (128, 96), (64, 64))
"""Width and height, whole numbers of visual tokens."""
TEXTS = (*WORDS, "total", "OK", *map(str, range(1, 19)))
THINGS = (*NAMES, *TEXTS)
TEXT_SIZES = (14, 14, 14, 20)
RADII = 11, 20
AREA = 3000
"""The pixels of an image for each thing in it, about."""
MARGIN, GAP = 2, 2


@dataclass(frozen=True)
class Thing:
    name: str
    box: Box


def draw_scene(rng: random.Random, most: int = 99) -> tuple[Image.Image, list[Thing]]:
    """Return an image, and what is in it in the order of reading: up to `most` things, as far as there is room."""
    size = rng.choice(SIZES)
    image, canvas = blank(size)
    things: list[Thing] = []
    for _ in range(rng.randint(1, min(most, 1 + size[0] * size[1] // AREA))):
        for _ in range(8):
            thing, draw = _shape(rng, size) if rng.random() < 0.55 else _text(rng, size)
            if thing.box[2] < size[0] and all(shared(_enlarged(thing.box), other.box) == 0 for other in things):
                draw(canvas)
                things.append(thing)
                break
    return image, sorted(things, key=lambda thing: (thing.box[1], thing.box[0]))


def _shape(rng: random.Random, size: Size) -> tuple[Thing, Callable[[ImageDraw.ImageDraw], object]]:
    radius = rng.randint(*RADII)
    x, y = (rng.randint(radius + 1, side - radius - 2) for side in size)
    shape = Shape(rng.choice(NAMES), x, y, radius)
    return Thing(shape.name, shape.box), shape.draw


def _text(rng: random.Random, size: Size) -> tuple[Thing, Callable[[ImageDraw.ImageDraw], object]]:
    text, font_size = rng.choice(TEXTS), rng.choice(TEXT_SIZES)
    width, height = extent(text, font_size)
    x, y = (
        rng.randint(MARGIN, max(MARGIN, side - one - MARGIN)) for side, one in zip(size, (width, height), strict=True)
    )
    return Thing(text, (x, y, x + width, y + height)), partial(write, text=text, place=(x, y), size=font_size)


def _enlarged(box: Box) -> Box:
    return box[0] - GAP, box[1] - GAP, box[2] + GAP, box[3] + GAP


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the area that two boxes share."""
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)
