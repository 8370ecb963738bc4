"""Qwen's HTML, as its report shows it (arXiv 2502.13923): each element has its box in data-bbox."""

import re
from collections.abc import Sequence
from html import escape

from qwenvl_train.tasks.documents.parts import MARK, Element, PageText
from qwenvl_train.tasks.documents.tables import html_table

_BOX = f'data-bbox="{MARK}"'
_FORMATS = {"music sheet": ' format="abc notation"', "chemical formula": ' format="smile"'}


def page_in_html(elements: Sequence[Element]) -> PageText:
    lines, regions, tables = [], [], 0
    for element in elements:
        tables += element.kind == "table"
        line, label = _element(element, tables)
        lines.append(line)
        regions += [(element.box, label)] * line.count(_BOX)
    return PageText("```html\n<html><body>\n" + "\n".join(lines) + "\n</body></html>\n```", regions)


def _element(element: Element, table: int) -> tuple[str, str]:
    """Return an element with marks for its boxes, and its class. `table` is the number of the current table."""
    text = escape(element.text, quote=False)
    match element.kind:
        case "heading":
            return f"<h{element.level} {_BOX}>{text}</h{element.level}>", f"h{element.level}"
        case "paragraph":
            return f"<p {_BOX}>{text}</p>", "p"
        case "code":
            return f"<pre {_BOX}>{text}</pre>", "pre"
        case "table":
            opening = f'<table {_BOX} class="table{table}">'
            return re.sub(r"\A<table[^>]*>", lambda _: opening, html_table(element), flags=re.IGNORECASE), "table"
        case "image":
            name = "image caption" if element.text else "image"
            return _division(name, f"<p>{text}</p>" if element.text else ""), name
        case "image ocr":
            return _division("image ocr", f"<p>{text}</p>"), element.kind
        case "chart":
            return _division("chart", html_table(element) if element.html or element.latex else ""), element.kind
        case "formula":
            return _division("formula", f"<div>{escape(element.latex, quote=False)}</div>"), element.kind
    return _division(element.kind, f"<div>{text}</div>"), element.kind


def _division(name: str, content: str) -> str:
    return f'<div class="{name}"{_FORMATS.get(name, "")} {_BOX}><img {_BOX}/>{content}</div>'
