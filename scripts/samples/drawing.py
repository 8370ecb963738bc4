"""Draw named shapes and words, and tell the box of each."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont
from shapes import BACKGROUND, COLOURS, SHAPES, draw_shape

from samples.canvas import Canvas

Box = tuple[int, int, int, int]
"""`x1, y1, x2, y2` in pixels. The last two are those of the first pixel that is no longer inside."""
Size = tuple[int, int]
"""Width and height in pixels."""
Colour = tuple[int, int, int]
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
PARTS = ("disc", "plate", "wedge", "washer", "hub")
"""The names that a part of each shape has in the sample sets."""
WORDS = ("tea", "rice", "milk", "soap", "lamp", "book", "shoe", "coat", "fish", "corn", "salt", "cake")
FONT_SIZE = 14
INK, DARK, GREY, WHITE, BLUE = (30, 30, 30), (70, 70, 80), (205, 205, 210), (255, 255, 255), (40, 80, 220)
GREEN, YELLOW = (190, 230, 190), (250, 240, 160)
GAP = 2
"""The least distance between two shapes of a scene, in pixels."""


@dataclass(frozen=True)
class Shape:
    name: str
    """Its colour and its shape, such as `red ring`."""
    x: int
    y: int
    radius: int

    @property
    def box(self) -> Box:
        """Return the smallest box around what is drawn."""
        x1, y1, x2, y2 = _extent(self.name.split()[1], self.radius)
        return self.x + x1, self.y + y1, self.x + x2, self.y + y2

    def draw(self, canvas: Canvas) -> None:
        colour, shape = self.name.split()
        draw_shape(canvas, shape, (self.x, self.y), self.radius, COLOURS[colour])

    def is_apart_from(self, other: "Shape") -> bool:
        least = self.radius + other.radius + GAP
        return max(abs(self.x - other.x), abs(self.y - other.y)) > least


@cache
def _extent(shape: str, radius: int) -> Box:
    """Return the box of a shape around the origin."""
    image = Image.new("L", (2 * radius + 3, 2 * radius + 3))
    draw_shape(ImageDraw.Draw(image), shape, (radius + 1, radius + 1), radius, 255)
    x1, y1, x2, y2 = image.getbbox() or (0, 0, 0, 0)
    return x1 - radius - 1, y1 - radius - 1, x2 - radius - 1, y2 - radius - 1


def blank(size: Size) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", size, BACKGROUND)
    return image, ImageDraw.Draw(image)


def scatter(rng: random.Random, names: Sequence[str], size: Size, radii: tuple[int, int]) -> Iterator[Shape]:
    """Yield shapes of these names at free places. One for which there is no place left is left out."""
    placed: list[Shape] = []
    for name in names:
        for _ in range(50):
            radius = rng.randint(*radii)
            x, y = (rng.randint(radius + 1, side - radius - 2) for side in size)
            shape = Shape(name, x, y, radius)
            if all(map(shape.is_apart_from, placed)):
                placed.append(shape)
                yield shape
                break


def fill(canvas: Canvas, box: Box, colour: Colour, outline: Colour | None = None, width: int = 1) -> None:
    """Fill a box. Pillow takes the last pixel of a rectangle as inside."""
    canvas.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=colour, outline=outline, width=width)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font that Pillow comes with."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def extent(text: str, size: int = FONT_SIZE) -> Size:
    """Return the width and height of a line of text."""
    left, top, right, bottom = _font(size).getbbox(text)
    return round(right - left), round(bottom - top)


def write(canvas: Canvas, text: str, place: tuple[int, int], size: int = FONT_SIZE, colour: Colour = INK) -> Box:
    """Write a line of text with its top left corner at a place, and return its box."""
    left, top, _, _ = _font(size).getbbox(text)
    canvas.text((place[0] - left, place[1] - top), text, fill=colour, font=_font(size))
    width, height = extent(text, size)
    return place[0], place[1], place[0] + width, place[1] + height
