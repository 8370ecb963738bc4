"""Finds the text of a page in an answer: in HTML, in Markdown, or in a list of lines with boxes."""

import re
from html.parser import HTMLParser

from qwenvl_train.data.render.written import page_elements, written_regions
from qwenvl_train.evaluation.metrics.tables import without_tables

_FENCE = re.compile(r"\A\s*```\w*\n|\n```\s*\Z")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FORMULA = re.compile(r"\$\$.*?\$\$|\\\[.*?\\\]", re.DOTALL)
_NO_TEXT = ("chart", "chemical formula", "formula", "music sheet")
"""Classes of elements whose content is no text."""


def text_of_page(answer: str) -> str:
    """Return the text of a page without tables, formulas, charts and scores, or the texts of a list of lines."""
    if listed := listed_text(answer):
        return listed
    inside = _FENCE.sub("", answer)
    if "data-bbox" in inside or "<html" in inside:
        reader = _Text()
        reader.feed(inside)
        reader.close()
        return "".join(reader.parts).strip()
    return without_tables(_FORMULA.sub("", _COMMENT.sub("", inside))).strip()


def listed_text(answer: str) -> str:
    """Return the texts of a list of lines with boxes. Empty if the answer is none."""
    if next(page_elements(answer), None) is not None:
        return ""
    return "\n".join(one.label for one in written_regions(answer))


def letters(text: str) -> str:
    """Return the letters and digits of a text, which are what OmniDocBench compares."""
    return re.sub(r"\W", "", text)


class _Text(HTMLParser):
    """Collects the text of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._left_out = ""
        """The tag of the element that is left out."""
        self._depth = 0
        """How many elements of this tag are open."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._left_out:
            self._depth += tag == self._left_out
        elif tag in ("table", "style") or (dict(attrs).get("class") or "").split(".")[0] in _NO_TEXT:
            self._left_out, self._depth = tag, 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag == self._left_out:
            self._depth -= 1
            if not self._depth:
                self._left_out = ""

    def handle_data(self, data: str) -> None:
        if not self._left_out:
            self.parts.append(data)
