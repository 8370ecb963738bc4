"""Qwen's Markdown: tables are in LaTeX, and tables and pictures have a comment with their box."""

from collections.abc import Sequence

from qwenvl_train.tasks.documents.parts import MARK, Element, PageText
from qwenvl_train.tasks.documents.tables import latex_table


def page_in_markdown(elements: Sequence[Element]) -> PageText:
    parts, regions = [], []
    for element in elements:
        parts.append(_element(element))
        if parts[-1].startswith("<!-- "):
            regions.append((element.box, "table" if element.kind == "table" else "image"))
    return PageText("```markdown\n" + "\n\n".join(parts) + "\n```", regions)


def _element(element: Element) -> str:
    match element.kind:
        case "heading":
            return f"{'#' * element.level} {element.text}"
        case "paragraph":
            return element.text
        case "code":
            return f"```\n{element.text}\n```"
        case "formula":
            return f"$$\n{element.latex}\n$$"
        case "table":
            return f"<!-- Table ({MARK}) -->\n{latex_table(element)}"
    caption = f"\n\n{element.text}" if element.kind in ("image", "image ocr") and element.text else ""
    return f"<!-- Image ({MARK}) -->{caption}"
