"""Pages in our layout JSON and in OmniDocBench's annotations, written by hand after its description."""

import math

import pytest

from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.metric import Picture
from qwenvl_train.evaluation.metrics.tables import tables_in
from qwenvl_train.families.qwen2_5_vl import FAMILY as QWEN2_5_VL
from qwenvl_train.families.qwen2_vl import FAMILY as QWEN2_VL
from qwenvl_train.families.qwen3_vl import FAMILY as QWEN3_VL
from qwenvl_train.tasks.documents.parts import Element
from qwenvl_train.tasks.documents.tables import latex_table
from tests.evaluation.metric_scores import main, score
from tests.tasks.conftest import answer_of, converted, question_of, written

TABLE = "<table border=1><tr><td>a</td><td>b</td></tr></table>"
ELEMENTS = [
    {"class": "heading", "level": 1, "box": [0, 0, 200, 10], "text": "R&D"},
    {"class": "paragraph", "box": [0, 10, 200, 20], "text": "1 < 2"},
    {"class": "table", "box": [0, 20, 200, 30], "html": TABLE},
    {"class": "formula", "box": [0, 30, 200, 40], "latex": "x^2"},
    {"class": "chart", "box": [0, 40, 100, 50], "html": TABLE},
    {"class": "image", "box": [0, 50, 100, 60], "text": "A cat"},
    {"class": "image ocr", "box": [100, 50, 200, 60], "text": "EXIT"},
    {"class": "image", "box": [0, 60, 200, 70]},
    {"class": "code", "box": [0, 70, 200, 80], "text": "a = 1"},
    {"class": "music sheet", "box": [0, 80, 200, 90], "text": "X:1\nK:C\nC"},
    {"class": "chemical formula", "box": [0, 90, 200, 100], "text": "CCO"},
]
SMILES = '<img data-bbox="0 900 1000 1000"/><div>CCO</div>'
HTML = f"""```html
<html><body>
<h1 data-bbox="0 0 1000 100">R&amp;D</h1>
<p data-bbox="0 100 1000 200">1 &lt; 2</p>
<table data-bbox="0 200 1000 300" class="table1"><tr><td>a</td><td>b</td></tr></table>
<div class="formula" data-bbox="0 300 1000 400"><img data-bbox="0 300 1000 400"/><div>x^2</div></div>
<div class="chart" data-bbox="0 400 500 500"><img data-bbox="0 400 500 500"/>{TABLE}</div>
<div class="image caption" data-bbox="0 500 500 600"><img data-bbox="0 500 500 600"/><p>A cat</p></div>
<div class="image ocr" data-bbox="500 500 1000 600"><img data-bbox="500 500 1000 600"/><p>EXIT</p></div>
<div class="image" data-bbox="0 600 1000 700"><img data-bbox="0 600 1000 700"/></div>
<pre data-bbox="0 700 1000 800">a = 1</pre>
<div class="music sheet" format="abc notation" data-bbox="0 800 1000 900"><img data-bbox="0 800 1000 900"/><div>X:1
K:C
C</div></div>
<div class="chemical formula" format="smile" data-bbox="0 900 1000 1000">{SMILES}</div>
</body></html>
```"""
MARKDOWN = """```markdown
# R&D

1 < 2

<!-- Table (0, 200, 1000, 300) -->
\\begin{tabular}{|l|l|}
\\hline
a & b \\\\ \\hline
\\end{tabular}

$$
x^2
$$

<!-- Image (0, 400, 500, 500) -->

<!-- Image (0, 500, 500, 600) -->

A cat

<!-- Image (500, 500, 1000, 600) -->

EXIT

<!-- Image (0, 600, 1000, 700) -->

```
a = 1
```

<!-- Image (0, 800, 1000, 900) -->

<!-- Image (0, 900, 1000, 1000) -->
```"""


@pytest.fixture
def layout(draw, write):
    def source(*elements: dict, name: str = "pages.json"):
        draw("a.png")
        page = {"image": "a.png", "elements": list(elements)}
        return write(name, [page] if name.endswith("l") else {"pages": [page]})

    return source


@pytest.mark.parametrize("name", ["pages.json", "pages.jsonl"])
@pytest.mark.parametrize(("form", "text"), [("html", HTML), ("markdown", MARKDOWN)])
def test_both_forms(name, form, text, layout):
    (row,) = converted("documents", layout(*ELEMENTS, name=name), form, prompt="QwenVL")
    assert (row["id"], question_of(row)) == ("a.png", "<image>QwenVL")
    assert written(row, QWEN3_VL) == written(row, QWEN2_VL) == text
    assert row["objects"]["ref"][:2] == (["h1", "p"] if form == "html" else ["table", "image"])


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_each_generation_has_its_units_and_scores_full(form, layout):
    (row,) = converted("documents", layout(*ELEMENTS), form)
    answer = written(row, QWEN2_5_VL)
    assert ('"0 11 112 17"' if form == "html" else "(0, 11, 112, 17)") in answer
    picture = Picture(original=(100, 200), resized=(56, 112))
    # Some of the boxes are below half a pixel from each other in so small a picture, but equal.
    for family, text in ((QWEN2_5_VL, answer), (QWEN3_VL, written(row, QWEN3_VL))):
        assert score("layout", text, text, family=family, picture=picture) == {"f1@0.5": 1, "boxes_f1@0.5": 1}
    assert main("page_text", answer, "R D 1 2 A cat EXIT a 1") == 1
    assert len(tables_in(answer)) == (2 if form == "html" else 1)


@pytest.mark.parametrize(
    ("html", "latex"),
    [
        (
            "<table><thead><tr><th colspan=2>A &amp; B</th><th rowspan=2>C_1</th></tr></thead>"
            "<tr><td>$x_1$</td><td>5 %</td></tr></table>",
            "\\multicolumn{2}{|l|}{A \\& B} & \\multirow{2}{*}{C\\_1} \\\\ \\hline\n$x_1$ & 5 \\% &  \\\\ \\hline\n",
        ),
        (
            "<table><tr><td rowspan=2 colspan=2>a<br>b</td></tr><tr><td>c</td></tr></table>",
            "\\multicolumn{2}{|l|}{\\multirow{2}{*}{a b}} \\\\ \\hline\n\\multicolumn{2}{|l|}{} & c \\\\ \\hline\n",
        ),
        ("<table><tr><td>$5 & $6</td><td>$</td></tr></table>", "\\$5 \\& \\$6 & \\$ \\\\ \\hline\n"),
        (
            "<table><tr><td>a\\b {c} 5^2 ~</td></tr></table>",
            "a\\textbackslash{}b \\{c\\} 5\\^{}2 \\~{} \\\\ \\hline\n",
        ),
        ("<table><tr><td>$x^{2}$ and $y$.</td></tr></table>", "$x^{2}$ and $y$. \\\\ \\hline\n"),
    ],
)
def test_a_table_in_html_becomes_one_in_latex(html, latex):
    found = latex_table(Element("table", (0, 0, 1, 1), html=html))
    assert f"\\hline\n{latex}\\end{{tabular}}" in found
    assert main("teds", found, html.replace("<thead>", "").replace("</thead>", "").replace("<br>", " ")) == 1


def test_words_in_cells_stay_apart_and_raised_ones_raised():
    html = (
        "<table><tr><td>Net <b>sales</b><br>in&nbsp;%<p>a</p>b</td><td>x<sup>2</sup>7, H<sub>2</sub>O</td></tr></table>"
    )
    assert "\nNet sales in \\% a b & x$^{2}$7, H$_{2}$O \\\\" in latex_table(Element("table", (0, 0, 1, 1), html=html))


@pytest.mark.parametrize(
    ("cell", "latex"),
    [
        ("x<sup>2", "x$^{2}$"),
        ("b</sup>", "b"),
        ("<sup>a<sub>i</sub></sup>7", "$^{a_{i}}$7"),
        ("<sup><sub>i</sup>7", "$^{_{i}}$7"),
        ("5<sup>$x$ %</sup>", "5$^{x \\%}$"),
        ("<h4>T</h4>b", "T b"),
    ],
)
def test_raised_text_that_is_nested_or_never_ends_is_one_formula(cell, latex):
    html = f"<table><tr><td>{cell}</td><td>c</td></tr><tr><td>{cell}</table>"
    rows = f"\\hline\n{latex} & c \\\\ \\hline\n{latex} \\\\ \\hline\n"
    assert rows in latex_table(Element("table", (0, 0, 1, 1), html=html))


@pytest.mark.parametrize(
    "html",
    ["<table><tr><td><table><tr><td>a</td></tr></table></td></tr></table>", 2 * "<table><tr><td>a</td></tr></table>"],
)
def test_tables_that_one_tabular_cannot_hold_are_told(html):
    with pytest.raises(UserError, match="the html of a table has a further table"):
        latex_table(Element("table", (0, 0, 1, 1), html=html))


def test_a_table_with_another_one_inside_is_whole():
    latex = "\\begin{tabular}{l}a & \\begin{tabular}{l}b\\end{tabular} \\\\ c & d \\end{tabular}"
    assert latex_table(Element("table", (0, 0, 1, 1), latex=f"$${latex}$$")) == latex


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"latex": "\\begin{array}{l}a\\end{array}"}, "the latex of a table has no tabular"),
        ({"html": f"<table><tr><td colspan={'9' * 5000}>a</td></tr></table>"}, "a cell of a table spans 9999"),
        ({"html": "<table><tr><td rowspan=3000000>a</td></tr></table>"}, "a cell of a table spans 3000000 columns"),
        ({"html": "<table><tr><td>a<![b[c]]></td></tr></table>"}, "the html of a table cannot be read"),
    ],
)
def test_tables_that_have_no_latex_are_told(content, reason):
    with pytest.raises(UserError, match=reason):
        latex_table(Element("table", (0, 0, 1, 1), **content))


def test_a_table_in_latex_becomes_one_in_html(layout):
    table = {"class": "table", "box": [0, 0, 9, 9], "latex": "\\begin{tabular}{l}a \\\\ b\\end{tabular}"}
    (row,) = converted("documents", layout(table))
    assert '<table data-bbox="<bbox>" class="table1"><tr><td>a</td></tr><tr><td>b</td></tr></table>' in answer_of(row)


PARAGRAPH = ELEMENTS[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class": "text"}, "element 1 has the class text; it is one of heading, paragraph,"),
        ({"box": [1, 2, 3]}, "element 1 has the box [1, 2, 3]; expected [x1, y1, x2, y2]"),
        ({"box": [0, 0, 300, 10]}, "element 1: the box [0, 0, 300, 10] is not inside its image of 200×100 pixels"),
        ({"text": " "}, "element 1, a paragraph, has no text"),
        ({"text": 3}, "element 1: text is 3, which is no text"),
        ({"class": "table"}, "element 1, a table, has no html or latex"),
        ({"class": "table", "html": "a | b"}, "the html of a table has no table: 'a | b'"),
        ({"class": "table", "latex": "a & b"}, "the latex of a table has no tabular: 'a & b'"),
        ({"class": "heading", "level": 7}, "element 1 has the level 7"),
        ({"bbox": []}, "element 1 has bbox; an element has class, box, text"),
    ],
)
def test_broken_elements_are_told(changes, reason, layout):
    source = layout(PARAGRAPH | changes)
    (refused,) = converted("documents", source)
    assert refused.where == f"{source}, page 1"
    assert reason in refused.reason


def test_pages_without_elements_or_image_are_told(draw, write):
    draw("a.png")
    source = write(
        "pages.jsonl", [{"image": "a.png", "elements": []}, {"elements": []}, {"image": "b.png", "elements": []}]
    )
    none, no_image, missing = converted("documents", source, format="layout")
    assert none.reason == "it has no elements"
    assert no_image.reason == "it needs an image and a list of elements"
    assert "b.png" in missing.reason
    with pytest.raises(UserError, match="has no list of pages"):
        converted("documents", write("pages.json", []), format="layout")


def polygon(top: float, **found: object) -> dict:
    return {"poly": [0, top, 200, top, 200, top + 10, 0, top + 10], "ignore": False, "anno_id": int(top), **found}


OMNI = [
    polygon(20, category_type="table", order=3, html=TABLE, latex="\\begin{tabular}{ll}a & b\\end{tabular}"),
    polygon(0, category_type="title", order=1, text="Title"),
    polygon(10, category_type="text_block", order=2, text="Words $x$ "),
    polygon(30, category_type="equation_isolated", order=4, latex="$$y = 1$$"),
    polygon(40, category_type="figure", order=5),
    polygon(50, category_type="figure_caption", order=6, text="Figure 1"),
    polygon(60, category_type="page_number", order=None, text="7"),
    polygon(70, category_type="text_block", order=8, text="unreadable", ignore=True),
    polygon(80, category_type="chart_mask", order=9),
    polygon(90, category_type="abandon", order=10, text="x"),
]


def omni(*found: dict, **info: object) -> list:
    return [{"layout_dets": list(found), "page_info": {"image_path": "a.png", "page_no": 0, **info}, "extra": {}}]


def test_omnidocbench(draw, write):
    draw("a.png")
    (row,) = converted("documents", write("omni.json", omni(*OMNI, width=200, height=100)))
    assert row["id"] == "a.png"
    assert row["objects"]["ref"] == ["h2", "p", "table", "formula", "formula", "image", "image", "p"]
    assert "<div>y = 1</div>" in answer_of(row)
    assert all(word not in answer_of(row) for word in ("unreadable", ">7<", ">x<"))
    assert row["objects"]["bbox"][0] == [0, 0, 200, 10]


def test_omnidocbench_in_markdown(draw, write):
    draw("a.png")
    (row,) = converted("documents", write("omni.jsonl", omni(*OMNI)), "markdown")
    assert answer_of(row).startswith(
        "```markdown\n## Title\n\nWords $x$\n\n<!-- Table (<bbox>) -->\n\\begin{tabular}{ll}a"
    )
    assert row["objects"]["bbox"] == [[0, 20, 200, 30], [0, 40, 200, 50]]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (polygon(0, category_type="poem", order=1, text="a"), "the poem 0 has a category that is not known here"),
        (polygon(0, category_type="text_block", order=1), "the text_block 0, a paragraph, has no text"),
        (polygon(0, category_type="title", order=1, text="a") | {"poly": [1, 2]}, "the title 0 has the poly [1, 2]"),
        (polygon(0, category_type="title", order=1, text=["a"]), "the title 0: text is no text"),
        (polygon(0, category_type="table", order=1, html={"a": 1}), "the table 0: html is no text"),
        (polygon(0, category_type="title", order=1, text="a") | {"poly": [10**400] * 8}, "the title 0 has the poly"),
        (polygon(0, category_type="title", order=1, text="a") | {"poly": [math.inf] * 8}, "the title 0 has the poly"),
        ({"order": 1}, "an entry of layout_dets has no category_type"),
    ],
)  # fmt: skip
def test_broken_annotations_are_told(found, reason, draw, write):
    draw("a.png")
    source = write("omni.json", omni(found, width=200, height=100))
    (refused,) = converted("documents", source, format="omnidocbench")
    assert refused.where == f"{source}, record 1"
    assert reason in refused.reason


def test_boxes_are_those_of_the_image(draw, write):
    """Annotations are often for a page in another resolution, whose size they tell."""
    draw("a.png", (100, 51))
    (row,) = converted("documents", write("omni.json", omni(*OMNI, width=200, height=101)))
    assert row["objects"]["bbox"][:2] == [[0, 0, 100, 5.05], [0, 5.05, 100, 10.1]]
    (refused,) = converted("documents", write("omni.json", omni(*OMNI, width=200, height=200)))
    assert refused.reason == "its file has 100×51 pixels, not the 200×200 of the source"


def test_a_page_without_page_info_is_told(write):
    (refused,) = converted("documents", write("omni.json", [{"layout_dets": []}]), format="omnidocbench")
    assert refused.reason == "it needs layout_dets, and page_info with an image_path"
