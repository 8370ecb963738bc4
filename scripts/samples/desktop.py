"""A simulated computer: icons on a desktop, and a window with a list that is longer than it."""

import random
from collections.abc import Mapping
from typing import Any

from samples.canvas import Canvas
from samples.device import Action, Device
from samples.drawing import DARK, GREY, NAMES, WHITE, WORDS, YELLOW, Box, Shape, fill, write

ROWS, COLUMNS, CELL = 2, 4, 40
RADIUS = 13
ICONS = (3, 7)
WINDOW, TITLE, CLOSE = (12, 6, 152, 82), (12, 6, 152, 22), (136, 6, 152, 22)
ITEM = (60, 24, 148, 42)
"""The box of the first item of the list. The others are below it."""
SHOWN, ITEMS = 3, 6
"""How many items of the list the window shows, and how many there are."""
TO_CHOOSE = 0.6
"""The share of tasks in which an item of the list is to be chosen."""
FROM_OTHER_WINDOW = 0.2
"""The share of tasks that begin in the window of another program."""


class Desktop(Device):
    tool = "computer_use"
    size = (160, 96)
    clicks = (("Click", "left_click"), ("Open", "double_click"))
    moves = (
        ("Scroll down", {"action": "scroll", "pixels": -5}),
        ("Scroll up", {"action": "scroll", "pixels": 5}),
        ("End", {"action": "terminate", "status": "success"}),
    )

    def __init__(self, rng: random.Random) -> None:
        names = rng.sample(NAMES, rng.randint(*ICONS))
        cells = [(column, row) for row in range(ROWS) for column in range(COLUMNS)]
        self.icons = dict(zip(names, rng.sample(cells, len(names)), strict=True))
        self.lists = {name: rng.sample(WORDS, ITEMS) for name in names}
        self.program = rng.choice(names)
        self.item = rng.choice(self.lists[self.program]) if rng.random() < TO_CHOOSE else ""
        self.goal = f"Choose {self.item} in the {self.program}" if self.item else f"Open the {self.program}"
        others = [name for name in names if name != self.program]
        self._enter(rng.choice(others) if rng.random() < FROM_OTHER_WINDOW else None)

    def _enter(self, program: str | None) -> None:
        self.open, self.first, self.chosen = program, 0, ""

    def draw_on(self, canvas: Canvas) -> dict[str, Box]:
        fill(canvas, (0, 86, *self.size), GREY)
        return self._draw_icons(canvas) if self.open is None else self._draw_window(canvas, self.open)

    def _draw_icons(self, canvas: Canvas) -> dict[str, Box]:
        boxes = {}
        for name, (column, row) in self.icons.items():
            shape = Shape(name, CELL * column + CELL // 2, CELL * row + CELL // 2 + 2, RADIUS)
            shape.draw(canvas)
            boxes[name] = shape.box
        return boxes

    def _draw_window(self, canvas: Canvas, program: str) -> dict[str, Box]:
        fill(canvas, WINDOW, WHITE, DARK)
        fill(canvas, TITLE, DARK)
        fill(canvas, CLOSE, (214, 40, 40))
        Shape(program, 36, 52, RADIUS).draw(canvas)
        boxes = {"close": CLOSE}
        for number, item in enumerate(self.lists[program][self.first : self.first + SHOWN]):
            box = ITEM[0], ITEM[1] + 18 * number, ITEM[2], ITEM[3] + 18 * number
            if item == self.chosen:
                fill(canvas, box, YELLOW)
            write(canvas, item, (box[0] + 4, box[1] + 4))
            boxes[item] = box
        return boxes

    def act(self, action: Mapping[str, Any]) -> None:
        match action:
            case {"action": "double_click", "coordinate": point} if self.open is None:
                if name := self.under(point):
                    self._enter(name)
            case {"action": "left_click", "coordinate": point} if self.open:
                match self.under(point):
                    case "close":
                        self._enter(None)
                    case str(item):
                        self.chosen = item
            case {"action": "scroll", "pixels": int() | float() as pixels} if self.open:
                self.first = ITEMS - SHOWN if pixels < 0 else 0

    def is_reached(self) -> bool:
        return self.open == self.program and self.chosen == self.item

    def next_action(self) -> Action:
        if self.is_reached():
            return {"action": "terminate", "status": "success"}
        if self.open is None:
            return {"action": "double_click", "coordinate": self.middle_of(self.program)}
        if self.open != self.program or not self.item:
            return {"action": "left_click", "coordinate": self.middle_of("close")}
        if self.item in self.lists[self.program][self.first : self.first + SHOWN]:
            return {"action": "left_click", "coordinate": self.middle_of(self.item)}
        return {"action": "scroll", "pixels": -5 if self.first == 0 else 5}
