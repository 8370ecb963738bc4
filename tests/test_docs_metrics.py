"""docs/metrics.md: its table names all metrics with their sub-scores and what `auto` chooses; its examples run."""

import re
import sys
from pathlib import Path

import pytest

from qwenvl_train.evaluation.metrics.choose import KINDS
from qwenvl_train.evaluation.metrics.metric import Part
from qwenvl_train.evaluation.metrics.table import METRICS, load_metric

PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
LINES = PAGE.split("\n## ")[0].splitlines()
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in LINES if line.startswith("| `")]
CLICK = '{"name": "mobile_use", "arguments": {"action": "click", "coordinate": [1, 2], "text": "a"}}'
SWIPE = CLICK.replace(', "text"', ', "coordinate2": [3, 3], "text"')
BOX = '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}]'
PAGE_OF_TABLE = '<table data-bbox="1 2 3 4"><tr><td>a</td></tr></table>'
EXAMPLES = {
    "layout": [(PAGE_OF_TABLE, PAGE_OF_TABLE)],
    "teds": [(PAGE_OF_TABLE, PAGE_OF_TABLE)],
    "teds_struct": [(PAGE_OF_TABLE, PAGE_OF_TABLE)],
    "fields": [('{"a": "b"}', '{"a": "b"}')],
    "grounding": [("[2, 3]", "[1, 2, 3, 4]"), (BOX, BOX)],
    "temporal": [("1 - 2", "1 - 2")],
    "agent_action": [(CLICK, CLICK), (SWIPE, SWIPE)],
    "screenspot": [(CLICK, "[1, 2, 3, 4]")],
}
EXAMPLES |= {f"agent_action_{name}": EXAMPLES["agent_action"] for name in ("android_control", "os_atlas", "odyssey")}
"""Pairs of texts with which a metric has all its sub-scores."""


def in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_table_names_exactly_the_metrics():
    assert [in_code(row[0]) for row in ROWS] == [[name] for name in METRICS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_the_table_names_the_sub_scores_the_main_one_first(row):
    (name,) = in_code(row[0])
    found = [load_metric(name).score(*pair) for pair in EXAMPLES.get(name, [("a", "a")])]
    assert set(in_code(row[3])) == set().union(*found)
    assert {next(iter(scores)) for scores in found} == {in_code(row[3])[0]}


def test_the_table_tells_which_auto_chooses():
    chosen = {name for kind in KINDS.values() for name in kind.metrics}
    assert {in_code(row[0])[0] for row in ROWS if row[4] != "–"} == chosen


def test_the_examples_run(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_package.py").write_text("\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    metric = load_metric("my_package.same_first_word")
    assert f'"""{metric.convention}"""' in PAGE
    assert metric.score("a b", "a c") == {"same_first_word": Part(1)}
    assert load_metric("my_package.WORDS_TOO_MANY").score("a b c", "a b") == {"words_too_many": Part(1, 2)}
    sys.modules.pop("my_package")
