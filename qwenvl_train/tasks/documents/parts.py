"""The elements of a page, and the text of a page with marks for their boxes."""

from typing import NamedTuple

from qwenvl_train.data.sample import Box
from qwenvl_train.errors import UserError

MARK = "<bbox>"
"""What stands for the next box in the text of a row."""
CONTENTS = {
    "heading": ("text",),
    "paragraph": ("text",),
    "code": ("text",),
    "table": ("html", "latex"),
    "chart": ("html", "latex", ""),
    "formula": ("latex",),
    "image": ("text", ""),
    "image ocr": ("text",),
    "music sheet": ("text",),
    "chemical formula": ("text",),
}
"""The classes of elements, with the contents of which each needs one. An empty one means that it needs none."""


class Element(NamedTuple):
    kind: str
    """The class of the element."""
    box: Box
    text: str = ""
    """The words of text, the caption of an image, the ABC notation of a score, or the SMILES of a chemical formula."""
    html: str = ""
    """A table."""
    latex: str = ""
    """A table or a formula."""
    level: int = 2
    """The level of a heading, from 1 to 6."""


class PageText(NamedTuple):
    text: str
    regions: list[tuple[Box, str]]
    """The box for each mark in the text, with the class of its element."""


def checked(element: Element, what: str) -> Element:
    """Return an element that has what its class needs.

    Raises:
        UserError: If it has not.
    """
    if element.kind not in CONTENTS:
        raise UserError(f"{what} has the class {element.kind}; it is one of {', '.join(CONTENTS)}")
    needed = CONTENTS[element.kind]
    if "" not in needed and not any(getattr(element, name).strip() for name in needed):
        raise UserError(f"{what}, a {element.kind}, has no {' or '.join(needed)}")
    if not 1 <= element.level <= 6:
        raise UserError(f"{what} has the level {element.level}; a heading has one from 1 to 6")
    return element
