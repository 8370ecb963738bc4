"""The cards of generated answers in the report: pictures, boxes drawn over them, and long answers folded."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from qwenvl_train.reporting.page import data_uri
from qwenvl_train.reporting.reporter import Row

THUMBNAIL, DRAWING = 160, 640
"""The longest side of a picture, and of one with boxes, in pixels."""
LONG, SHOWN = 600, 300
"""A text of more than LONG characters is folded after about SHOWN."""
LONG_LINES, SHOWN_LINES = 16, 8
"""The same limits in lines."""


@dataclass(frozen=True)
class Folded:
    """A text of which the page shows the beginning until the reader opens the rest."""

    start: str
    rest: str = ""


@dataclass(frozen=True)
class Shape:
    """A box or a point over a picture, in pixels of the original picture."""

    kind: str
    """Where it is from: expected, before or after."""
    name: str
    left: float
    top: float
    width: float
    height: float
    point: bool


def card(row: Row) -> Row:
    """Return what the page shows of a row of predictions.jsonl."""
    regions = row.get("regions") or {}
    first = opened(row["images"][0]) if regions and row["images"] else None
    return {
        **row,
        "turn": row.get("turn", 1),
        "drawing": first and data_uri(smaller(first, DRAWING), "webp", quality=85),
        "size": first.size if first else (0, 0),
        "shapes": [shape(kind, region) for kind, found in regions.items() for region in found],
        "pictures": [thumbnail(path) for path in row["images"]] if first is None else [],
        "prompt": folded(row["prompt"]),
        "answers": [
            {
                "kind": kind,
                "heading": heading,
                "text": folded(text or "(empty)"),
                "right": right,
                "regions": "; ".join(map(in_words, regions.get(kind) or [])),
            }
            for kind, heading, text, right in _answers(row)
        ],
    }


def _answers(row: Row) -> list[tuple[str, str, str, bool | None]]:
    """Return the kind, the heading and the text of each answer that there is, and whether it is right."""
    pair = row.get("rejected") is not None
    found: list[tuple[str, str, str, bool | None]] = []
    found.append(("expected", "chosen" if pair else "expected", row["expected"], None))
    if pair:
        found.append(("rejected", "rejected", row["rejected"], None))
    for kind in ("before", "after"):
        if row.get(kind) is not None:
            found.append((kind, f"{kind} training", row[kind], is_right(row[kind], row["expected"])))
    return found


def is_right(answer: str, expected: str) -> bool:
    return answer.strip() == expected.strip()


def folded(text: str) -> Folded:
    """Fold a text that is long in characters or in lines, such as an answer that a model did not end."""
    lines = text.split("\n")
    if len(text) <= LONG and len(lines) <= LONG_LINES:
        return Folded(text)
    start = "\n".join(lines[:SHOWN_LINES])[:SHOWN]
    return Folded(start, text[len(start) :])


def shape(kind: str, region: Row) -> Shape:
    """Return a region as it is drawn. A model may write the corners of a box in any order."""
    x, y, *corner = region["coordinates"]
    right, bottom = corner or (x, y)
    return Shape(
        kind, in_words(region), min(x, right), min(y, bottom), abs(right - x), abs(bottom - y), point=not corner
    )


def in_words(region: Row) -> str:
    numbers = ", ".join(f"{value:g}" for value in region["coordinates"])
    return f"{region['label']} [{numbers}]".lstrip()


def opened(path: str) -> Image.Image | None:
    """Return a picture as it is displayed, or None if it cannot be read."""
    try:
        with Image.open(Path(path)) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None


def thumbnail(path: str) -> str | None:
    """Return a small picture as a data: address, so that the page needs no other file. Return None if the picture
    cannot be read."""
    picture = opened(path)
    return None if picture is None else data_uri(smaller(picture, THUMBNAIL), "webp", quality=85)


def smaller(picture: Image.Image, side: int) -> Image.Image:
    copy = picture.copy()
    copy.thumbnail((side, side))
    return copy
