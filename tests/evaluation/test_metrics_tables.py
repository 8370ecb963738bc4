"""TEDS, beside the demo of PubTabNet."""

import pytest

from tests.evaluation.metric_scores import score

HEAD = "<tr><td><b>Name of {0}</b></td><td><b>{1}</b></td></tr>"
BODY = (
    "<tr><td>MACS [23]</td><td>Uses both a control library and local statistics to minimize bias</td></tr>"
    "<tr><td>SICER [{0}]</td><td>Designed for detecting diffusely enriched regions; for example, histone "
    "modification</td></tr><tr><td>{1} [24]</td><td>Corrects for reference genome mappability and local statistics</td>"
    "</tr><tr><td>SISSRs [25]</td><td>High resolution, precise identification of binding-site location</td></tr>"
    "<tr><td>F-seq [26]</td><td>Uses kernel density estimation</td></tr>"
)
FRAME = "<html><body><table><thead>{0}</thead><tbody>{1}</tbody></table></body></html>"
ANSWER = FRAME.format(HEAD.format("algori", "Notablefeatures"), BODY.format(15, "PeakSEQ"))
EXPECTED = FRAME.format(HEAD.format("algorithm", "Notable features"), BODY.format(14, "PeakSeq"))


def both(answer: str, expected: str) -> tuple[float, float]:
    return score("teds", answer, expected)["teds"], score("teds_struct", answer, expected)["teds_struct"]


def test_teds_is_that_of_pubtabnets_demo():
    """github.com/ibm-aur-nlp/PubTabNet, src/demo.ipynb prints 0.9781765018607124. Its 20 sample tables (0.60 to 1.0),
    and 800 comparisons of random tables with spans and tags in cells, gave the same scores with its code and ours, bit
    for bit; where its code gives a negative score, ours gives 0."""
    assert both(ANSWER, EXPECTED) == (0.9781765018607124, 1.0)


def table(*rows: str) -> str:
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


SMALL = table("<td>a</td><td>b</td>", "<td>c</td><td>d</td>")


@pytest.mark.parametrize(
    ("answer", "expected", "scores"),
    [
        (SMALL, SMALL, (1, 1)),
        # One of the six nodes has another text, is missing, or spans more columns.
        (SMALL.replace("d<", "x<"), SMALL, (5 / 6, 1)),
        (SMALL.replace("<td>d</td>", ""), SMALL, (5 / 6, 5 / 6)),
        (SMALL.replace("<td>d</td>", "<td>d</td><td>e</td>"), SMALL, (6 / 7, 6 / 7)),
        (SMALL.replace("<td>d", '<td colspan="2">d'), SMALL, (5 / 6, 5 / 6)),
        (SMALL.replace("<td>a", '<td colspan="1">a'), SMALL, (1, 1)),
        (SMALL.replace("td>", "th>"), SMALL, (1, 1)),
        (f"Here it is:\n```html\n{SMALL}\n```", SMALL, (1, 1)),
        (SMALL[: SMALL.index("<td>d")], SMALL, (5 / 6, 5 / 6)),  # cut at the limit of tokens
        (SMALL.replace("c", "<!-- x -->c"), SMALL, (1, 1)),
        (SMALL, SMALL + SMALL, (1 / 2, 1 / 2)),
        ("no table", SMALL, (0, 0)),
        ("", SMALL, (0, 0)),
        (SMALL, "no table", (0, 0)),
    ],
)
def test_teds(answer, expected, scores):
    assert both(answer, expected) == pytest.approx(scores)


def test_a_table_in_markdown_is_one_in_html():
    markdown = "The table:\n\n| a & b | 价格 |\n|:---|---:|\n| c | x \\| y |\n| d | |\n\nEnd."
    html = (
        "<table><thead><tr><td>a &amp; b</td><td>价格</td></tr></thead><tbody><tr><td>c</td><td>x | y</td></tr>"
        "<tr><td>d</td><td></td></tr></tbody></table>"
    )
    assert both(markdown, html) == both(html, markdown) == both(markdown, markdown) == (1, 1)
    # One of eleven nodes: thead, tbody, three rows and six cells.
    assert both(markdown.replace("| c ", "| e "), html) == pytest.approx((10 / 11, 1))
