"""The page of a comparison, with the curves of all runs in the same charts."""

from pathlib import Path

from qwenvl_train.reporting.folder import write_text_atomic
from qwenvl_train.reporting.pages.answers import Shown, card_of, gallery
from qwenvl_train.reporting.pages.charts import compared_charts
from qwenvl_train.reporting.pages.page import fill_template
from qwenvl_train.reporting.recorded import is_right
from qwenvl_train.reporting.reporter import Row
from qwenvl_train.verbs.compare.comparison import ComparedAnswer, Comparison


def write_page(comparison: Comparison, path: Path) -> None:
    page = {
        "names": list(comparison.runs),
        "figures": comparison.figures,
        "settings": comparison.settings,
        "same_samples": comparison.same_samples,
        "charts": compared_charts({name: run.rows for name, run in comparison.runs.items()}),
        "gallery": gallery([_card(answer) for answer in comparison.answers if answer.differs]),
        "answered": len(comparison.answers),
    }
    write_text_atomic(path, fill_template(Path(__file__).with_name("page.html.j2"), page))


def _card(answer: ComparedAnswer) -> Row:
    first = next(iter(answer.rows.values()))
    shown = [Shown("expected", "expected", first["expected"])]
    for name, row in answer.rows.items():
        right = is_right(row, "after")
        shown.append(Shown(name, name, row["after"], right, "✓ right" if right else "✗ wrong"))
    regions = {"expected": (first.get("regions") or {}).get("expected") or []}
    return card_of(first | {"regions": regions if any(regions.values()) else {}}, shown)
