"""The page of inspect. It shows pictures as the model sees them, boxes, frames, tokens and labels, and needs no other
file."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from qwenvl_train.reporting.folder import write_text_atomic
from qwenvl_train.reporting.pages.page import Tile, fill_template
from qwenvl_train.reporting.problems import told_once
from qwenvl_train.reporting.wording import count, many, percent
from qwenvl_train.verbs.inspect.facts import Broken, Inspected, Overview, ShownTurn, visible
from qwenvl_train.verbs.inspect.histogram import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Histogram,
    histogram_of_lengths,
    histogram_of_shares,
)
from qwenvl_train.verbs.inspect.media import Windows, figure_of
from qwenvl_train.verbs.inspect.text import limit_in_words

_SHOWN_PROBLEMS = 50


@dataclass(frozen=True)
class DrawnSample:
    """The texts and pixels that the page shows in addition to the facts about a sample."""

    texts: list[str]
    """The text of each token. It is empty for placeholders, and for all but the last token of one character."""
    pixels: list[list[np.ndarray]]
    """The frames of each picture or clip, of shape [height, width, 3] and type uint8. A picture has one frame."""


@dataclass(frozen=True)
class Heading:
    model: str
    data: str
    files: list[str]
    """A line for each file, with its name, number of rows and format."""
    windows: Windows | None
    """The windows of the vision tower, or None if every block attends to the whole picture."""


def write_page(
    path: Path, heading: Heading, items: Iterable[tuple[Inspected, DrawnSample] | Broken], overview: Overview | None
) -> None:
    cards = [
        broken_card(number, item) if isinstance(item, Broken) else card(number, *item, heading.windows)
        for number, item in enumerate(items, start=1)
    ]
    problems, more = told_once(overview.problems if overview else (), _SHOWN_PROBLEMS)
    page = {
        "heading": heading,
        "cards": cards,
        "overview": overview,
        "tiles": tiles(overview) if overview else [],
        "histograms": histograms(overview) if overview else [],
        "limit": limit_in_words(overview) if overview else "",
        "problems": problems,
        "more_problems": more,
        "has_marks": any(medium["marks"] for found in cards for medium in found["media"]),
        "has_media": any(found["media"] for found in cards),
        "box": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
    }
    write_text_atomic(path, fill_template(Path(__file__).with_name("page.html.j2"), page))


def tiles(overview: Overview) -> list[Tile]:
    shown = [Tile("Samples", count(len(overview.lengths)))]
    if len(overview.lengths):
        shown += [
            Tile("Tokens", count(overview.tokens)),
            Tile("Supervised", percent(overview.supervised / overview.tokens)),
            Tile("Images and videos", count(overview.media)),
            Tile("Median length", count(overview.percentile(50))),
            Tile("Longest", count(overview.percentile(100))),
        ]
    if overview.rows_per_epoch is not None:
        shown.append(Tile("Micro-batches in an epoch", count(overview.rows_per_epoch)))
    if overview.fills is not None:
        shown.append(Tile("Packed rows filled", percent(float(overview.fills.mean()))))
    return shown


def histograms(overview: Overview) -> list[Histogram]:
    found = []
    if len(overview.lengths):
        found.append(histogram_of_lengths("Tokens in a sample", overview.lengths, "sample", overview.max_length))
    if overview.fills is not None:
        title = f"Filled share of a {overview.filled}"
        found.append(histogram_of_shares(title, overview.fills, overview.filled))
    return found


def broken_card(number: int, item: Broken) -> dict[str, Any]:
    return {"number": number, "item": item, "broken": True, "problem": visible(item.problem), "media": [], "turns": []}


def card(number: int, item: Inspected, drawn: DrawnSample, windows: Windows | None) -> dict[str, Any]:
    starts = first_placeholders(item)
    return {
        "number": number,
        "item": item,
        "broken": False,
        "problem": visible(item.problem or ""),
        "media": [
            figure_of(item, place, drawn.pixels[place], starts[place], windows) for place in range(len(item.media))
        ],
        "turns": [
            {"role": turn.role, "tokens": turn.tokens, "strip": strip(item, turn, drawn.texts)} for turn in item.turns
        ],
        "facts": Markup(json.dumps(facts(item), separators=(",", ":"))),  # only numbers, so no text needs escaping
    }


def facts(item: Inspected) -> dict[str, Any]:
    """Return what the page shows for the token under the pointer. `ids` leaves placeholders out."""
    media = np.zeros(item.length, dtype=bool)
    for span in item.spans:
        media[span.start : span.stop] = span.medium is not None
    return {"ids": item.input_ids[~media].tolist(), "positions": [stretches(row) for row in item.position_ids]}


def stretches(row: np.ndarray) -> list[list[int]]:
    """Return [first, step, count] for each stretch of numbers that are constant or increase by 1. Rows of position ids
    consist mostly of such stretches."""
    found: list[list[int]] = []
    for value in row.tolist():
        if found:
            first, step, times = found[-1]
            if times == 1 and value - first in (0, 1):
                found[-1] = [first, value - first, 2]
                continue
            if times > 1 and value == first + step * times:
                found[-1][2] += 1
                continue
        found.append([value, 0, 1])
    return found


def strip(item: Inspected, turn: ShownTurn, texts: Sequence[str]) -> Markup:
    """Return an HTML element for each token, and one for each run of placeholders, without white space between them."""
    elements = []
    for span in turn.spans:
        if span.medium is not None:
            tokens = span.stop - span.start
            facts_of = f'data-medium="{span.medium}" data-tokens="{tokens}"'
            words = f"{item.name_of(span)} · {many(tokens, 'token')}"
            elements.append(f'<button type="button" {facts_of}>{words}</button>')
            continue
        tag, kind = "b" if span.trained else "i", ' class="c"' if span.control else ""
        for text in texts[span.start : span.stop]:
            shown = escape(visible(text).replace("\n", "⏎\n") or "·")
            elements.append(f"<{tag}{kind}>{shown}</{tag}>")
    return Markup("".join(elements))


def first_placeholders(item: Inspected) -> list[list[int]]:
    """Return, for each picture or clip, the index of the token at which each layer of its grid starts."""
    starts: list[list[int]] = [[] for _ in item.media]
    for span in item.spans:
        if span.medium is not None:
            medium = item.media[span.medium]
            starts[span.medium] += range(span.start, span.stop, medium.tokens // medium.grid[0])
    return starts
