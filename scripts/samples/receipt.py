"""Receipts: the name of a shop, what was bought with its prices, and the total."""

import random

from PIL import Image

from samples.drawing import WORDS, Box, blank, write

SIZE = 128, 96
LINE = 22
LEFT, RIGHT = 8, 88
"""Where the words and the prices begin."""
PRICES = range(1, 10)


def draw_receipt(rng: random.Random) -> tuple[Image.Image, list[tuple[str, Box]], dict[str, str]]:
    """Return a receipt, the lines of its text with their boxes, and its key information."""
    image, canvas = blank(SIZE)
    shop, *bought = rng.sample(WORDS, 3)
    prices = [rng.choice(PRICES) for _ in bought]
    lines = [(shop.upper(), write(canvas, shop.upper(), (LEFT, 6)))]
    for number, (word, price) in enumerate(zip([*bought, "total"], [*prices, sum(prices)], strict=True), start=1):
        y = 6 + LINE * number
        x1, y1, *_ = first = write(canvas, word, (LEFT, y))
        *_, x2, y2 = write(canvas, str(price), (RIGHT, y))
        lines.append((f"{word} {price}", (x1, y1, x2, max(y2, first[3]))))
    return image, lines, {"company": shop.upper(), "total": str(sum(prices))}
