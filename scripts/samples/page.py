"""Pages of a document: a heading, a paragraph, a table and a picture, in any order."""

import random
from typing import Any

from PIL import Image, ImageDraw

from samples.drawing import DARK, NAMES, WORDS, Box, Shape, blank, write

SIZE = 128, 128
HEIGHTS = {"heading": 24, "paragraph": 22, "table": 42, "picture": 34}
LEFT, TOP, GAP = 8, 6, 6
COLUMN, LINE = 52, 20
"""Width and height of a cell of a table."""


def draw_page(rng: random.Random) -> tuple[Image.Image, list[dict[str, Any]]]:
    """Return a page and its elements, in the order of reading and as our layout JSON has them."""
    image, canvas = blank(SIZE)
    kinds = rng.sample(tuple(HEIGHTS), rng.choice((2, 3)))
    y, elements = TOP, []
    for kind in kinds:
        elements.append(_draw(canvas, kind, y, rng))
        y += HEIGHTS[kind] + GAP
    return image, elements


def _draw(canvas: ImageDraw.ImageDraw, kind: str, y: int, rng: random.Random) -> dict[str, Any]:
    match kind:
        case "heading":
            text = rng.choice(WORDS)
            return {"class": "heading", "box": write(canvas, text, (LEFT, y + 2), 20), "text": text, "level": 1}
        case "paragraph":
            text = " ".join(rng.sample(WORDS, 2))
            return {"class": "paragraph", "box": write(canvas, text, (LEFT, y + 4)), "text": text}
        case "table":
            cells = rng.sample(WORDS, 4)
            box = _draw_table(canvas, cells, y)
            rows = "".join(f"<tr><td>{one}</td><td>{other}</td></tr>" for one, other in (cells[:2], cells[2:]))
            return {"class": "table", "box": box, "html": f"<table>{rows}</table>"}
        case _:
            shape = Shape(rng.choice(NAMES), rng.randint(LEFT + 16, SIZE[0] - LEFT - 16), y + 17, 15)
            shape.draw(canvas)
            return {"class": "image", "box": shape.box}


def _draw_table(canvas: ImageDraw.ImageDraw, cells: list[str], y: int) -> Box:
    for number, cell in enumerate(cells):
        x1, y1 = LEFT + COLUMN * (number % 2), y + LINE * (number // 2)
        canvas.rectangle((x1, y1, x1 + COLUMN, y1 + LINE), outline=DARK)
        write(canvas, cell, (x1 + 6, y1 + 4))
    return LEFT, y, LEFT + 2 * COLUMN + 1, y + 2 * LINE + 1
