"""What devices draw on: Pillow's canvas, or one whose drawing a browser shows."""

import base64
import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from PIL import Image, ImageFont
from shapes import BACKGROUND

Fill = Any
"""A colour as Pillow takes it, of three numbers."""


class Canvas(Protocol):
    """The methods of Pillow's `ImageDraw` that are used. The last pixels of a box are inside."""

    def rectangle(self, xy: Sequence[float], fill: Fill = None, outline: Fill = None, width: int = 1) -> None: ...

    def ellipse(self, xy: Sequence[float], fill: Fill = None, outline: Fill = None, width: int = 1) -> None: ...

    def polygon(self, xy: Sequence[Any], fill: Fill = None) -> None: ...

    def text(self, xy: Any, text: str, fill: Fill = None, font: Any = None) -> None: ...


class SvgCanvas:
    """Writes down what is drawn as SVG."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._parts: list[str] = []
        self._fonts: dict[str, str] = {}
        """The font file of each name, in base64."""
        self.rectangle((0, 0, size[0], size[1]), fill=BACKGROUND)

    def rectangle(self, xy: Sequence[float], fill: Fill = None, outline: Fill = None, width: int = 1) -> None:
        x1, y1, x2, y2 = _inner(xy, outline, width)
        self._add(f'rect x="{x1}" y="{y1}" width="{x2 - x1}" height="{y2 - y1}"', fill, outline, width)

    def ellipse(self, xy: Sequence[float], fill: Fill = None, outline: Fill = None, width: int = 1) -> None:
        x1, y1, x2, y2 = _inner(xy, outline, width)
        middle = f'cx="{(x1 + x2) / 2}" cy="{(y1 + y2) / 2}" rx="{(x2 - x1) / 2}" ry="{(y2 - y1) / 2}"'
        self._add(f"ellipse {middle}", fill, outline, width)

    def polygon(self, xy: Sequence[Any], fill: Fill = None) -> None:
        # Pillow colours the pixels under the corners, too.
        points = " ".join(f"{x + 0.5},{y + 0.5}" for x, y in xy)
        self._add(f'polygon points="{points}"', fill, None, 1)

    def text(self, xy: Any, text: str, fill: Fill = None, font: Any = None) -> None:
        assert isinstance(font, ImageFont.FreeTypeFont)
        assert isinstance(font.path, io.BytesIO)
        name = f"font{font.size}"
        self._fonts[name] = base64.b64encode(font.path.getvalue()).decode()
        x, y = xy[0], xy[1] + font.getmetrics()[0]
        style = f'font-family="{name}" font-size="{font.size}"'
        self._parts.append(f'<text x="{x}" y="{y}" {style} fill="{_colour(fill)}">{text}</text>')

    def _add(self, tag: str, fill: Fill, outline: Fill, width: int) -> None:
        line = f' stroke="{_colour(outline)}" stroke-width="{width}"' if outline is not None else ""
        self._parts.append(f'<{tag} fill="{_colour(fill)}"{line}/>')

    @property
    def page(self) -> str:
        """Return a page that shows what is drawn."""
        faces = "".join(
            f"@font-face {{ font-family: {name}; src: url(data:font/ttf;base64,{file}) }}"
            for name, file in self._fonts.items()
        )
        width, height = self.size
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{"".join(self._parts)}</svg>'
        return f"<!doctype html><style>{faces} body {{ margin: 0 }} svg {{ display: block }}</style>{svg}"


def _inner(xy: Sequence[float], outline: Fill, width: int) -> tuple[float, float, float, float]:
    """Return the box that SVG draws as Pillow draws this one, whose outline is inside it."""
    half = width / 2 if outline is not None else 0
    return xy[0] + half, xy[1] + half, xy[2] + 1 - half, xy[3] + 1 - half


def _colour(colour: Fill) -> str:
    return "none" if colour is None else f"rgb{tuple(colour)}"


@contextmanager
def chromium() -> Iterator[Any]:
    """Open Chromium without a window, and yield Playwright's browser."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("There is no Chromium here: apt install chromium.")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@contextmanager
def browser() -> Iterator[Any]:
    """Open Chromium, and yield a function that returns the screen of a page of a size."""
    with chromium() as opened:
        tab = opened.new_page()

        def screen(page: str, size: tuple[int, int]) -> Image.Image:
            tab.set_viewport_size({"width": size[0], "height": size[1]})
            tab.set_content(page)
            tab.evaluate("document.fonts.ready")
            return Image.open(io.BytesIO(tab.screenshot())).convert("RGB")

        yield screen
