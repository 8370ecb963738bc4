"""Finds the text of a page in an answer: in HTML, in Markdown, or in a list of lines with boxes."""

import re
from html import unescape

from qwenvl_train.data.render.written import CLASS, page_elements, written_regions
from qwenvl_train.evaluation.metrics.tables import without_tables

_FENCE = re.compile(r"\A\s*```\w*\n|\n```\s*\Z")
_COMMENT = re.compile(r"<!--(?:(?!<!--|-->).)*-->", re.DOTALL)
_TAG = re.compile(r"<(/?)([a-z]\w*)([^<>]*)>", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$.*?\$\$|\\\[(?:(?!\\\[).)*?\\\]", re.DOTALL)
_NO_TEXT = ("chart", "chemical formula", "formula", "music sheet")
"""Classes of elements whose content is no text."""


def text_of_page(answer: str) -> str:
    """Return the text of a page without tables, formulas, charts and scores, or the texts of a list of lines."""
    if listed := listed_text(answer):
        return listed
    inside = _FENCE.sub("", answer)
    if "data-bbox" in inside or "<html" in inside:
        return _text_of_html(_COMMENT.sub("", inside)).strip()
    return without_tables(_FORMULA.sub("", _COMMENT.sub("", inside))).strip()


def listed_text(answer: str) -> str:
    """Return the texts of a list of lines with boxes. Empty if the answer is none."""
    if next(page_elements(answer), None) is not None:
        return ""
    return "\n".join(one.label for one in written_regions(answer))


def letters(text: str) -> str:
    """Return the letters and digits of a text, which are what OmniDocBench compares."""
    return re.sub(r"\W", "", text)


def _text_of_html(html: str) -> str:
    """Return the text of an HTML page. An element that is left out ends at its end tag, or at the end of the page."""
    parts, at = [], 0
    left_out, depth = "", 0  # the tag of the element that is left out, and how many elements of this tag are open
    for match in _TAG.finditer(html):
        end, tag, attributes = match[1], match[2].lower(), match[3]
        if not left_out:
            parts.append(html[at : match.start()])
            if not end and _has_no_text(tag, attributes):
                left_out, depth = tag, 1
        elif tag == left_out:
            depth += -1 if end else 1
            left_out = left_out if depth else ""
        at = match.end()
    return unescape("".join(parts) + ("" if left_out else html[at:]))


def _has_no_text(tag: str, attributes: str) -> bool:
    named = CLASS.search(attributes)
    return tag in ("table", "style") or bool(named and named[1].split(".")[0] in _NO_TEXT)
