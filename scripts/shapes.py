"""Draw images of one coloured shape each, with the questions about them and the bin that a part belongs to."""

import math
import random
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 215, 50),
    "purple": (140, 60, 180),
    "orange": (250, 140, 30),
}
SHAPES = ("circle", "square", "triangle", "ring", "cross")
BACKGROUND = (255, 255, 255)
SIZES = ((84, 84), (112, 84), (84, 112), (96, 90))
"""Width and height. The last size is not a multiple of the model's 28 pixels, so that images are also resized."""

RADII = (28, 34)
OFF_CENTRE = 4
"""The largest distance from the centre. It is small because a tiny vision tower learns slowly if shapes vary more."""

BIN_LETTERS = dict(zip(COLOURS, "DAFBEC", strict=True))
BIN_NUMBERS = dict(zip(SHAPES, "42513", strict=True))
"""The rule of the sample task, chosen by hand: the colour gives the letter of a bin, and the shape its number."""

WARM = ("red", "yellow", "orange")
"""The rule of the sample pairs: the preferred answer names the colour only if it is one of these."""

BIN_QUESTIONS = ("Which bin does this part go to?", "Where does this part go?", "Into which bin does it go?")


@dataclass(frozen=True)
class Picture:
    image: Image.Image
    colour: str
    shape: str

    @property
    def description(self) -> str:
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.shape}"

    @property
    def bin(self) -> str:
        return f"bin {BIN_LETTERS[self.colour]}{BIN_NUMBERS[self.shape]}"

    @property
    def preferred(self) -> str:
        """Return the preferred answer, which names the colour only if it is warm."""
        return self.description if self.colour in WARM else self.shape

    @property
    def refused(self) -> tuple[str, str]:
        """Return the two true answers that are not preferred."""
        return self.colour, self.shape if self.colour in WARM else self.description


def draw_picture(rng: random.Random, colour: str | None = None, shape: str | None = None) -> Picture:
    """Draw one shape near the centre. Values that are not given come from `rng`, so that a seed fixes the image."""
    colour = colour or rng.choice(tuple(COLOURS))
    shape = shape or rng.choice(SHAPES)
    width, height = rng.choice(SIZES)
    image = Image.new("RGB", (width, height), BACKGROUND)
    x, y = (side // 2 + rng.randint(-OFF_CENTRE, OFF_CENTRE) for side in (width, height))
    draw_shape(ImageDraw.Draw(image), shape, (x, y), rng.randint(*RADII), COLOURS[colour])
    return Picture(image, colour, shape)


def draw_shape(canvas: Any, shape: str, centre: tuple[int, int], radius: int, fill: tuple[int, int, int] | int) -> None:
    x, y = centre
    third = radius // 3
    match shape:
        case "circle":
            small = round(radius * 0.8)  # Otherwise a circle and a square differ only in a few pixels at the corners.
            canvas.ellipse((x - small, y - small, x + small, y + small), fill=fill)
        case "square":
            canvas.rectangle((x - radius, y - radius, x + radius, y + radius), fill=fill)
        case "triangle":
            turns = (0, math.tau / 3, 2 * math.tau / 3)
            canvas.polygon(
                [(round(x + radius * math.sin(turn)), round(y - radius * math.cos(turn))) for turn in turns], fill=fill
            )
        case "ring":
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), outline=fill, width=third)
        case "cross":
            canvas.rectangle((x - radius, y - third, x + radius, y + third), fill=fill)
            canvas.rectangle((x - third, y - radius, x + third, y + radius), fill=fill)


def ask_about(picture: Picture, rng: random.Random) -> tuple[str, str]:
    """Return a question that the embedded checkpoint is taught to answer, and its answer.

    Some questions ask it to repeat the name of a bin, whatever the image shows. They teach the spelling of these names;
    otherwise the checkpoint would learn never to generate the answers of the sample task.
    """
    match rng.choices(("description", "shape", "colour", "repeat"), weights=(4, 3, 1, 2))[0]:
        case "colour":
            question = rng.choice(("What colour is it?", "Which colour does it have?", "What color is it?"))
            return question, picture.colour
        case "shape":
            question = rng.choice(("What shape is it?", "Which shape is this?"))
            return question, picture.shape
        case "repeat":
            words = f"bin {rng.choice('ABCDEF')}{rng.choice('12345')}"
            return f"Please say {words}.", words
    question = rng.choice(("What is it?", "What is this?", "What do you see?", "What is in the picture?"))
    return question, picture.description
