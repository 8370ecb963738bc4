"""The page of an evaluation: the scores, and the answers with the lowest scores beside their pictures."""

from pathlib import Path
from typing import Any

from qwenvl_train.evaluation.scoring import ScoredRow
from qwenvl_train.reporting.folder import write_text_atomic
from qwenvl_train.reporting.pages.answers import Shown, card_of, gallery
from qwenvl_train.reporting.pages.page import Tile, fill_template
from qwenvl_train.reporting.wording import count, duration
from qwenvl_train.verbs.eval.results import Results
from qwenvl_train.verbs.eval.text import cells_of, main_score_in_words, metrics_in_words, name_of


def write_page(results: Results) -> Path:
    path = results.first.answers.folder.path / "eval.html"
    page = {
        "model": results.first.answers.model,
        "tiles": _tiles(results),
        "several": len(results.models) > 1,
        "rows": _rows(results),
        "notes": list(metrics_in_words(results)),
        "gallery": gallery([_card(one, results) for one in results.worst()]),
    }
    write_text_atomic(path, fill_template(Path(__file__).with_name("page.html.j2"), page))
    return path


def _tiles(results: Results) -> list[Tile]:
    answers = results.first.answers
    shown = [Tile("Answers", count(len(answers.rows)))]
    if answers.generated:
        shown.append(Tile("Generated in", duration(answers.seconds)))
    if results.first.cut:
        shown.append(Tile(f"Cut at {results.config.eval.max_new_tokens} tokens", count(results.first.cut)))
    if answers.problems:
        shown.append(Tile("Samples not decoded", count(len(answers.problems))))
    return shown


def _rows(results: Results) -> list[dict[str, Any]]:
    several = len(results.models) > 1
    rows = []
    for model in results.models:
        for figure in model.figures:
            cells = cells_of(results, model, figure)
            padded = cells + [""] * (6 - len(cells)) if several else cells
            name = name_of(figure)
            rows.append({"model": model.answers.model, "entry": figure.entry, "metric": name, "cells": padded})
    return rows


def _card(one: ScoredRow, results: Results) -> dict[str, Any]:
    row = one.row
    shown = [Shown("expected", "expected", row["expected"])]
    shown.append(Shown("answer", "answer", row["answer"], one.right, main_score_in_words(one)))
    for other in results.models[1:]:
        theirs = next((each for each in other.scored if _same(each.row, row)), None)
        if theirs is not None:
            verdict = main_score_in_words(theirs)
            heading = f"answer of {other.answers.model}"
            shown.append(Shown("other", heading, theirs.row["answer"], theirs.right, verdict))
    return card_of(row, shown)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["index"], one["turn"]) == (other["index"], other["turn"])
