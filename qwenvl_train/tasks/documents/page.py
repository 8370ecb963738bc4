"""The rows of pages, from their elements."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.converter import Raw, RowOptions
from qwenvl_train.tasks.documents.html import page_in_html
from qwenvl_train.tasks.documents.markdown import page_in_markdown
from qwenvl_train.tasks.documents.parts import Element
from qwenvl_train.tasks.rows import answer_row

FORMS = ("html", "markdown")


@dataclass(frozen=True)
class Page:
    key: str
    """The id of its row."""
    image: Path
    elements: Sequence[Element]
    """In the order of reading."""


def page_row(page: Page, options: RowOptions) -> Raw:
    if not page.elements:
        raise UserError("it has no elements")
    write, separator = (page_in_markdown, ", ") if options.form == "markdown" else (page_in_html, " ")
    written = write(page.elements)
    objects = {
        "ref": [label for _, label in written.regions],
        "bbox": [list(box) for box, _ in written.regions],
        "separator": separator,
    }
    question = options.prompts.ask(page.key)
    return answer_row(page.key, page.image, question, written.text, objects=objects if written.regions else None)
