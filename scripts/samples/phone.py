"""A simulated phone: two pages of apps, and in each app a field to write in."""

import random
from collections.abc import Mapping
from typing import Any

from samples.canvas import Canvas
from samples.device import Action, Device
from samples.drawing import BLUE, DARK, GREEN, GREY, NAMES, WHITE, WORDS, Box, Shape, fill, write

ROWS, COLUMNS = 3, 2
CELL = 48, 40
TOP = 16
RADIUS = 13
FIELD, SEND, SENT = (8, 72, 88, 92), (54, 98, 88, 118), (8, 136, 64, 156)
KEYBOARD = (0, 124, 96, 160)
APPS = (3, 5)
"""The least and the greatest number of apps on a page."""
FROM_OTHER_APP = 0.2
"""The share of tasks that begin in another app."""
TO_WRITE = 0.5
"""The share of tasks in which a word is to be written."""


class Phone(Device):
    tool = "mobile_use"
    size = (96, 160)
    clicks = (("Click", "click"), ("Open", "click"))
    moves = (
        ("Swipe left", {"action": "swipe", "coordinate": [500, 500], "coordinate2": [198, 500]}),
        ("Swipe right", {"action": "swipe", "coordinate": [500, 500], "coordinate2": [802, 500]}),
        ("Go home", {"action": "system_button", "button": "Home"}),
        ("End", {"action": "terminate", "status": "success"}),
    )

    def __init__(self, rng: random.Random) -> None:
        counts = [rng.randint(*APPS) for _ in range(2)]
        names = rng.sample(NAMES, sum(counts))
        pages = names[: counts[0]], names[counts[0] :]
        cells = [(column, row) for row in range(ROWS) for column in range(COLUMNS)]
        self.pages = [dict(zip(page, rng.sample(cells, len(page)), strict=True)) for page in pages]
        self.app = rng.choice(names)
        self.word = rng.choice(WORDS) if rng.random() < TO_WRITE else ""
        self.goal = f"Write {self.word} in the {self.app}" if self.word else f"Open the {self.app}"
        others = [name for name in names if name != self.app]
        self.open: str | None = rng.choice(others) if rng.random() < FROM_OTHER_APP else None
        self.page = 0 if self.open or rng.random() < 0.8 else 1
        self._enter(self.open)

    def _enter(self, app: str | None) -> None:
        self.open, self.has_keyboard, self.written, self.sent = app, False, "", ""

    def draw_on(self, canvas: Canvas) -> dict[str, Box]:
        return self._draw_pages(canvas) if self.open is None else self._draw_app(canvas, self.open)

    def _draw_pages(self, canvas: Canvas) -> dict[str, Box]:
        boxes = {}
        for name, (column, row) in self.pages[self.page].items():
            x, y = (side * number + side // 2 for side, number in zip(CELL, (column, row), strict=True))
            shape = Shape(name, x, y + TOP, RADIUS)
            shape.draw(canvas)
            boxes[name] = shape.box
        for page in range(len(self.pages)):
            x = self.size[0] // 2 - 8 + 16 * page
            canvas.ellipse((x - 3, 145, x + 3, 151), fill=DARK if page == self.page else GREY)
        return boxes

    def _draw_app(self, canvas: Canvas, app: str) -> dict[str, Box]:
        fill(canvas, (0, 0, 96, TOP), GREY)
        Shape(app, 48, 44, RADIUS).draw(canvas)
        fill(canvas, FIELD, WHITE, BLUE if self.has_keyboard else DARK, width=2)
        fill(canvas, SEND, DARK)
        write(canvas, "OK", (SEND[0] + 8, SEND[1] + 5), colour=WHITE)
        if self.written:
            write(canvas, self.written, (FIELD[0] + 6, FIELD[1] + 5))
        if self.has_keyboard:
            fill(canvas, KEYBOARD, GREY)
            for x in range(4, 92, 12):
                for y in (128, 140, 152):
                    fill(canvas, (x, y, x + 9, y + 7), DARK)
        elif self.sent:
            fill(canvas, SENT, GREEN)
            write(canvas, self.sent, (SENT[0] + 6, SENT[1] + 5))
        return {"field": FIELD, "OK": SEND}

    def act(self, action: Mapping[str, Any]) -> None:
        match action:
            case {"action": "click", "coordinate": point}:
                self._click(self.under(point))
            case {"action": "swipe", "coordinate": [x1, *_], "coordinate2": [x2, *_]} if self.open is None:
                self.page = 1 if x2 < x1 else 0
            case {"action": "type", "text": str(text)} if self.has_keyboard:
                self.written += text
            case {"action": "system_button", "button": "Home"}:
                self._enter(None)
                self.page = 0
            case {"action": "system_button", "button": "Back"}:
                self._enter(None)

    def _click(self, name: str | None) -> None:
        if name is None:
            return
        if self.open is None:
            self._enter(name)
        elif name == "field":
            self.has_keyboard = True
        elif self.written:
            self.sent, self.written, self.has_keyboard = self.written, "", False

    def is_reached(self) -> bool:
        return self.open == self.app and self.sent == self.word

    def next_action(self) -> Action:
        if self.is_reached():
            return {"action": "terminate", "status": "success"}
        if self.open not in (None, self.app) or self.sent or not self.word.startswith(self.written):
            return {"action": "system_button", "button": "Home"}
        if self.open is None:
            if self.app in self.pages[self.page]:
                return {"action": "click", "coordinate": self.middle_of(self.app)}
            return _swipe("left" if self.page == 0 else "right")
        if self.written == self.word:
            return {"action": "click", "coordinate": self.middle_of("OK")}
        if self.has_keyboard:
            return {"action": "type", "text": self.word.removeprefix(self.written)}
        return {"action": "click", "coordinate": self.middle_of("field")}


def _swipe(direction: str) -> Action:
    """Return the swipe that a converter writes for a direction alone, about a third of the screen from its middle."""
    x = {"left": 48 - 29, "right": 48 + 29}[direction]
    return {"action": "swipe", "coordinate": [48, 80], "coordinate2": [x, 80]}
