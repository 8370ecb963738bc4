"""Generated answers on a page: a gallery of cards with pictures, boxes drawn over them, and long answers folded. The
reader can filter and sort the cards, and enlarge the pictures (answers.js)."""

from dataclasses import dataclass

from PIL import Image

from qwenvl_train.reporting.pages.page import data_uri
from qwenvl_train.reporting.pictures import in_words, opened, shape, smaller
from qwenvl_train.reporting.recorded import is_right
from qwenvl_train.reporting.reporter import Row

SIDE = 640
"""The longest side of a picture on the page, in pixels."""
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
class Shown:
    """A text of a card: the expected answer, or a generated one."""

    kind: str
    """What the text is, by the keys of the row's regions: expected, before, after or answer."""
    heading: str
    text: str
    right: bool | None = None
    """Whether the answer is right, or None if that is not known."""
    verdict: str = ""
    """What the card says of a generated answer."""


def card(row: Row) -> Row:
    """Return what the report shows of a row of predictions.jsonl."""
    return card_of(row, _answers(row))


def card_of(row: Row, answers: list[Shown]) -> Row:
    """Return what a page shows of a sample: its pictures, with the regions of the row drawn over them, its prompt and
    its answers."""
    regions = row.get("regions") or {}
    judged = [one.right for one in answers if one.right is not None]
    newest = [one.right for one in answers if one.right is not None and one.kind != "before"] or judged
    before, after = row.get("before"), row.get("after")
    first = opened(row["images"][0]) if regions and row["images"] and row["images"][0] else None
    return {
        **row,
        "turn": row.get("turn", 1),
        "right": all(newest) if newest else None,
        "changed": before is not None and after is not None and before != after,
        "scores": scores_of(row),
        "drawing": first and embedded(first),
        "size": first.size if first else (0, 0),
        "shapes": [shape(kind, region) for kind, found in regions.items() for region in found],
        "pictures": [path and picture_of(path) for path in row["images"]] if first is None else [],
        "prompt": folded(row["prompt"]),
        "answers": [
            {
                "kind": one.kind,
                "heading": one.heading,
                "text": folded(one.text or "(empty)"),
                "right": one.right,
                "verdict": one.verdict,
                "regions": "; ".join(map(in_words, regions.get(one.kind) or [])),
            }
            for one in answers
        ],
    }


def scores_of(row: Row) -> dict[str, tuple[float | None, float | None]]:
    """Return the scores of the answers before and after training by metric. Each is None if there is none."""
    before, after = (((row.get("scores") or {}).get(kind) or {}) for kind in ("before", "after"))
    return {name: (before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])}


def gallery(cards: list[Row]) -> Row:
    """Return what the page shows of all cards: the cards, and by what they can be filtered and sorted."""
    kinds = {
        "all": cards,
        "wrong": [card for card in cards if card["right"] is False],
        "right": [card for card in cards if card["right"]],
        "changed": [card for card in cards if card["changed"]],
    }
    return {
        "cards": cards,
        "kinds": {name: len(found) for name, found in kinds.items() if found},
        "sources": list(dict.fromkeys(card["source"] for card in cards)),
        "metrics": list(dict.fromkeys(name for card in cards for name in card["scores"])),
    }


def _answers(row: Row) -> list[Shown]:
    pair = row.get("rejected") is not None
    found = [Shown("expected", "chosen" if pair else "expected", row["expected"])]
    if pair:
        found.append(Shown("rejected", "rejected", row["rejected"]))
    for kind in ("before", "after"):
        if row.get(kind) is not None:
            right = is_right(row, kind)
            verdicts = ("✓ equals chosen", "✗ differs") if pair else ("✓ right", "✗ wrong")
            verdict = "" if right is None else verdicts[0 if right else 1]
            found.append(Shown(kind, f"{kind} training", row[kind], right, verdict))
    return found


def folded(text: str) -> Folded:
    """Fold a text that is long in characters or in lines, such as an answer that a model did not end."""
    lines = text.split("\n")
    if len(text) <= LONG and len(lines) <= LONG_LINES:
        return Folded(text)
    start = "\n".join(lines[:SHOWN_LINES])[:SHOWN]
    return Folded(start, text[len(start) :])


def picture_of(path: str) -> str | None:
    """Return a picture as a data: address, so that the page needs no other file. Return None if the picture cannot be
    read."""
    picture = opened(path)
    return None if picture is None else embedded(picture)


def embedded(picture: Image.Image) -> str:
    return data_uri(smaller(picture, SIDE), "webp", quality=80)
