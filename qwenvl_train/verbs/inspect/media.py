"""The pictures and frames on the page, as the model sees them. The token grid, windows, boxes and points are drawn over
them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from qwenvl_train.reporting.pages.page import data_uri
from qwenvl_train.reporting.wording import count, many
from qwenvl_train.verbs.inspect.facts import Clip, Inspected, Mark, Medium, Picture, file_name, sides, visible
from qwenvl_train.verbs.inspect.text import clip_in_words

MOST_PAIRS = 24
"""The most frame pairs of a clip that the page shows. If a clip has more, the pairs shown are evenly spread over it."""

_PIXELS, _FRAME_PIXELS = 2_000_000, 120_000
"""The most pixels of a picture and of a frame on the page. Larger ones are made smaller, so that a page with many of
them still opens."""
_EXACT_BYTES = 200_000
"""The most characters of a picture that is stored without loss, as a data: address."""
_SIDE, _SIDE_OF_MANY, _FRAME_SIDE = 560, 340, 200
"""The longest side on the page, in pixels of the page, of a single picture, of one among several, and of a frame."""
_ENLARGED = 4
_ARROW_HEAD = 12.0
"""The length of the head of an arrow, in pixels of the resized picture."""
_ROOM_ABOVE = 0.08
"""A share of the picture's height. If a box starts lower than this, there is room for its name above it."""


@dataclass(frozen=True)
class Windows:
    """The windows into which the vision tower cuts pictures. Most of its blocks attend within one window at a time."""

    side: int
    """The side of a window, in merged tokens."""
    full_blocks: list[int]
    """The indices of the blocks that attend to the whole picture."""


def figure_of(
    item: Inspected, place: int, frames: list[np.ndarray], starts: list[int], windows: Windows | None
) -> dict[str, Any]:
    medium = item.media[place]
    shown_width = _shown_width(medium, alone=len(item.media) == 1)
    return {
        "place": place,
        "name": item.names[place],
        "file": visible(file_name(medium)),
        "path": visible(medium.path) if isinstance(medium.path, str) else "",
        "caption": _caption(medium, windows),
        "timing": clip_in_words(medium) if isinstance(medium, Clip) else "",
        "height": medium.resized[0],
        "width": medium.resized[1],
        "shown_width": shown_width,
        "enlarged": shown_width > medium.resized[1],
        "cell": medium.cell,
        "columns": _tokens_across(medium)[1],
        "layers": [
            {
                "start": starts[layer],
                "time": f"frame pair {layer + 1}: {medium.timestamps[layer]:.2f} s" if isinstance(medium, Clip) else "",
                "frames": [_frame(medium, frames, index) for index in indices],
            }
            for layer, indices in _shown_layers(medium, len(frames))
        ],
        "unshown": max(0, medium.grid[0] - MOST_PAIRS),
        "grid": _grid_path(medium),
        "windows": _windows_path(medium, windows) if windows else "",
        "marks": [
            _mark(mark, number, medium)
            for number, mark in enumerate(item.marks)
            if item.pictures[mark.picture][0] == place
        ],
    }


def _frame(medium: Medium, frames: list[np.ndarray], index: int) -> dict[str, str]:
    if isinstance(medium, Picture):
        return {"uri": encoded(frames[index], _PIXELS), "time": ""}
    return {"uri": encoded(frames[index], _FRAME_PIXELS), "time": f"{medium.seconds[index]:.2f} s"}


def _shown_layers(medium: Medium, frames: int) -> Iterator[tuple[int, range]]:
    """Yield the layers of the grid that are shown, with the indices of their frames."""
    layers = medium.grid[0]
    each = frames // layers
    for layer in np.unique(np.linspace(0, layers - 1, min(layers, MOST_PAIRS)).round().astype(int)).tolist():
        yield layer, range(layer * each, (layer + 1) * each)


def _tokens_across(medium: Medium) -> tuple[int, int]:
    """Return the number of rows and of columns of tokens."""
    return medium.resized[0] // medium.cell, medium.resized[1] // medium.cell


def _shown_width(medium: Medium, alone: bool) -> int:
    height, width = medium.resized
    side = _FRAME_SIDE if isinstance(medium, Clip) else _SIDE if alone else _SIDE_OF_MANY
    return round(width * min(side / max(height, width), _ENLARGED))


def _caption(medium: Medium, windows: Windows | None) -> str:
    rows, columns = _tokens_across(medium)
    layers = f"{medium.grid[0]}×" if isinstance(medium, Clip) else ""
    words = (
        f"{sides(medium.original)} → {sides(medium.resized)}, {layers}{rows}×{columns} = {count(medium.tokens)} tokens"
    )
    return f"{words}, {many(len(window_bounds(rows, columns, windows.side)), 'window')}" if windows else words


def _grid_path(medium: Medium) -> str:
    (height, width), cell = medium.resized, medium.cell
    across = [f"M0,{y}H{width}" for y in range(cell, height, cell)]
    return "".join(across + [f"M{x},0V{height}" for x in range(cell, width, cell)])


def _windows_path(medium: Medium, windows: Windows) -> str:
    cell = medium.cell
    return "".join(
        f"M{left * cell},{top * cell}H{right * cell}V{bottom * cell}H{left * cell}Z"
        for top, left, bottom, right in window_bounds(*_tokens_across(medium), windows.side)
    )


def _mark(mark: Mark, number: int, medium: Medium) -> dict[str, Any]:
    """Return the lines of a mark, in pixels of the resized picture, and the place of its name, in percent of the
    picture's size."""
    x, y, *corner = mark.drawn
    height, width = medium.resized
    return {
        "colour": number % 4,
        "label": visible(mark.label),
        "point": not corner,
        "path": _arrow(*mark.drawn) if mark.is_arrow else _box(*mark.drawn) if corner else f"M{x:.2f},{y:.2f}h0",
        "above": bool(corner) and y > _ROOM_ABOVE * height,
        "left": round(100 * x / width, 2),
        "top": round(100 * y / height, 2),
        "description": mark.description,
    }


def _box(left: float, top: float, right: float, bottom: float) -> str:
    return f"M{left:.2f},{top:.2f}H{right:.2f}V{bottom:.2f}H{left:.2f}Z"


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """Return a line with two shorter ones at its end."""
    length = math.hypot(to_x - x, to_y - y)
    head = min(_ARROW_HEAD, length)
    angle = math.atan2(to_y - y, to_x - x)
    sides = (
        (to_x - head * math.cos(angle + turn), to_y - head * math.sin(angle + turn))
        for turn in (-math.pi / 6, math.pi / 6)
    )
    (left, top), (right, bottom) = sides
    return f"M{x:.2f},{y:.2f}L{to_x:.2f},{to_y:.2f}M{left:.2f},{top:.2f}L{to_x:.2f},{to_y:.2f}L{right:.2f},{bottom:.2f}"


def window_bounds(rows: int, columns: int, side: int) -> list[tuple[int, int, int, int]]:
    """Return the top, left, bottom and right of each window, in merged tokens. Windows at the border are cut off."""
    return [
        (top, left, min(top + side, rows), min(left + side, columns))
        for top in range(0, rows, side)
        for left in range(0, columns, side)
    ]


def encoded(pixels: np.ndarray, most: int) -> str:
    """Return a picture of at most `most` pixels as a data: address. It is stored without loss if the result is small
    enough, and as JPEG of high quality otherwise."""
    picture = Image.fromarray(pixels)
    if (share := most / (picture.width * picture.height)) < 1:
        picture = picture.resize(
            (max(1, round(picture.width * share**0.5)), max(1, round(picture.height * share**0.5)))
        )
    exact = data_uri(picture, "png")
    return exact if len(exact) <= _EXACT_BYTES else data_uri(picture, "jpeg", quality=90, subsampling=0)
