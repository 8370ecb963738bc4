"""A simulated device: a screen, what calls of an agent do to it, and the call that leads on to the goal."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from PIL import Image

from samples.canvas import Canvas
from samples.drawing import Box, Size, blank

Action = dict[str, Any]
"""The arguments of a call of the device's tool, with points in pixels of the screenshot."""


class Device(ABC):
    """A device in a state from which its goal can be reached."""

    tool: ClassVar[str]
    size: ClassVar[Size]
    clicks: ClassVar[tuple[tuple[str, str], ...]]
    """Words for an action at a point, and its name."""
    moves: ClassVar[tuple[tuple[str, Action], ...]]
    """Words for the other actions, and the actions, with points in thousandths of the screen."""
    goal: str
    open: str | None
    """The name of the app or program that is open."""

    @abstractmethod
    def __init__(self, rng: random.Random) -> None:
        """Draw a goal and a state to start from."""

    @abstractmethod
    def draw_on(self, canvas: Canvas) -> dict[str, Box]:
        """Draw the screen, and return the boxes of what can be clicked on."""

    @abstractmethod
    def act(self, action: Mapping[str, Any]) -> None:
        """Change the state as an action does. Actions that do nothing on the device change nothing."""

    @abstractmethod
    def is_reached(self) -> bool:
        """Return whether the goal is reached."""

    @abstractmethod
    def next_action(self) -> Action:
        """Return the action that leads on to the goal, or ends the task if it is reached."""

    def draw(self) -> tuple[Image.Image, dict[str, Box]]:
        """Return the screen, and the boxes of what can be clicked on."""
        image, canvas = blank(self.size)
        return image, self.draw_on(canvas)

    def under(self, point: Any) -> str | None:
        """Return the name of what is at a point of the screen."""
        match point:
            case [float() | int() as x, float() | int() as y]:
                _, boxes = self.draw()
                return next((name for name, box in boxes.items() if _has(box, x, y)), None)
        return None

    def middle_of(self, name: str) -> list[float]:
        _, boxes = self.draw()
        x1, y1, x2, y2 = boxes[name]
        return [(x1 + x2) / 2, (y1 + y2) / 2]


def _has(box: Box, x: float, y: float) -> bool:
    return box[0] <= x < box[2] and box[1] <= y < box[3]
