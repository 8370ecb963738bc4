"""The metrics of pages: elements, text, and tables in LaTeX."""

import time

import pytest

from qwenvl_train.data.render.written import page_elements, written_regions
from qwenvl_train.evaluation.metrics.metric import Picture
from qwenvl_train.evaluation.metrics.pages import text_of_page
from qwenvl_train.evaluation.metrics.tables import tables_in
from qwenvl_train.families.qwen2_5_vl import FAMILY as QWEN2_5_VL
from qwenvl_train.families.qwen3_vl import FAMILY as QWEN3_VL
from tests.evaluation.metric_scores import main, of_source, score

HTML = """```html
<html><body>
<h1 data-bbox="100 100 900 200">R&amp;D</h1>
<p data-bbox="100 200 900 300">Two &lt;words&gt;</p>
<table data-bbox="100 300 900 400" class="table1"><tr><td>a</td><td>b</td></tr></table>
<div class="formula" data-bbox="100 400 900 500"><img data-bbox="100 400 900 500"/><div>x^2</div></div>
<div class="image caption" data-bbox="100 500 900 600"><img data-bbox="100 500 900 600"/><p>A cat</p></div>
<img data-bbox="100 600 900 700"/>
</body></html>
```"""
MARKDOWN = """```markdown
# R&D

Two <words>

<!-- Table (100, 300, 900, 400) -->
\\begin{tabular}{|l|l|}
\\hline
a & b \\\\ \\hline
\\end{tabular}

$$
x^2
$$

<!-- Image (100, 500, 900, 600) -->

A cat
```"""


def test_the_elements_of_a_page():
    found = [(one.label, one.numbers[1]) for one in page_elements(HTML)]
    assert found == [("h1", 100), ("p", 200), ("table", 300), ("formula", 400), ("image caption", 500), ("image", 600)]
    assert list(written_regions(HTML)) == list(page_elements(HTML))
    assert [(one.label, one.numbers[1]) for one in page_elements(MARKDOWN)] == [("table", 300), ("image", 500)]
    assert list(page_elements('<p data-bbox="1 2 3">a</p> <!-- Table (1, 2) --> <p data-bbox="1 2')) == []


@pytest.mark.parametrize("page", [HTML, MARKDOWN])
def test_the_text_of_a_page(page):
    assert text_of_page(page).replace("# ", "").split() == ["R&D", "Two", "<words>", "A", "cat"]
    assert main("page_text", page, page) == 1


def test_text_in_tables_and_formulas_is_left_out_with_what_is_inside():
    inner = "<table><tr><td>a<table><tr><td>b</td></tr></table>c</td></tr></table>"
    assert text_of_page(f'<p data-bbox="1 2 3 4">x</p>{inner}<p>y</p>') == "xy"
    assert text_of_page(f'<div class="chart" data-bbox="1 2 3 4"><img/>{inner}<div>d</div></div>y < z') == "y < z"
    assert text_of_page('<p data-bbox="1 2 3 4">x</p><div class="formula.handwritten"><div>x') == "x"


@pytest.mark.parametrize("text", ["<p ", "data-bbox<a ", "<!-- Table (", '[{"bbox_2d": [1, 2', "{'a': ", "<table "])
def test_endless_repetitions_are_read_in_no_time(text):
    began = time.process_time()
    for metric in ("page_text", "layout", "grounding", "temporal", "fields"):
        main(metric, text * 8000, HTML)
    assert time.process_time() - began < 5


def test_a_tag_without_end_is_read_in_no_time():
    began = time.process_time()
    assert main("layout", "<p " + 'data-bbox="' * 6000, HTML) == 0
    assert time.process_time() - began < 1


def test_the_forms_have_the_same_text():
    assert main("page_text", HTML, MARKDOWN) == 1
    assert main("page_text", HTML.replace("cat", "dog"), MARKDOWN) == pytest.approx(1 - 3 / 14)
    assert main("page_text", "", MARKDOWN) == 0


@pytest.mark.parametrize(
    ("answer", "f1", "boxes"),
    [
        (HTML, 1, 1),
        (HTML[: HTML.index("<div")], 2 * 3 / 9, 2 * 3 / 9),
        (HTML.replace("h1", "p"), 10 / 12, 1),
        (HTML.replace("100 200", "100 270"), 10 / 12, 10 / 12),
        ("", 0, 0),
    ],
)
def test_layout(answer, f1, boxes):
    picture = Picture(original=(2000, 2000), resized=(1000, 1000))
    for family in (None, QWEN3_VL, QWEN2_5_VL):
        found = score("layout", answer, HTML, family=family, picture=picture)
        assert found == pytest.approx({"f1@0.5": f1, "boxes_f1@0.5": boxes})


LINES = '[{"bbox_2d": [1, 1, 9, 3], "text_content": "SUB TOTAL"}, {"bbox_2d": [1, 4, 9, 6], "text_content": "9.00"}]'


def test_lines_of_text():
    """Text spotting end to end: the box and the text are right."""
    answer = LINES.replace("9.00", "9.08").replace("SUB TOTAL", "Sub  total")
    assert score("layout", answer, LINES) == {"f1@0.5": 0.5, "boxes_f1@0.5": 1}
    assert score("lines_cer", LINES.replace("9.00", "9.08"), LINES) == pytest.approx({"lines_cer": 1 / 14})
    assert main("lines_cer", "SUB TOTAL\n9.00", LINES) == 0
    assert main("lines_cer", "$$9.00$$", "$$9.00$$ TOTAL") == pytest.approx(6 / 14)
    assert main("page_text", LINES, "SUB TOTAL\n9.00") == 1


TABLES = {
    "inside a cell": (
        r"\begin{tabular}{l@{}l}a & \begin{tabular}[c]{@{}l@{}}b\\c & x\end{tabular} \\ d & {e & \\ f}\\\end{tabular}",
        r"<tr><td>a</td><td>b c x</td></tr><tr><td>d</td><td>{e &amp; \\ f}</td></tr>",
    ),
    "a group without an end": (
        r"\begin{tabular}{ll}\textbf{a & b \\ c & {d}",
        r"<tr><td>\textbf{a</td><td>b</td></tr><tr><td>c</td><td>{d}</td></tr>",
    ),
    "a place": (r"\begin{tabular}[t]{ll}a & b \\ \end{tabular}", "<tr><td>a</td><td>b</td></tr>"),
    "a width": (r"\begin{tabular*}{\textwidth}[t]{ll}a & b\end{tabular*}", "<tr><td>a</td><td>b</td></tr>"),
    "spans with options": (
        r"\begin{tabular}{ll}\multicolumn{2}{@{}c@{}}{x} \\ \multirow[t]{2}{*}[2pt]{y} & z \\ \end{tabular}",
        '<tr><td colspan="2">x</td></tr><tr><td rowspan="2">y</td><td>z</td></tr>',
    ),
    "escaped": (r"\begin{tabular}{l}\$5 \{a\} 2\^{}3 \textbackslash{}\end{tabular}", "<tr><td>$5 {a} 2^3 \\</td></tr>"),
    "plain, with an end": (
        r"\begin{tabular}{ll}a & b\\[2pt] c & d\end{tabular}",
        "<tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr>",
    ),
    "cut": (
        r"\begin{tabular}{|p{3cm}|l|}\hline a \& <b> & \\ \hline",
        "<tr><td>a &amp; &lt;b&gt;</td><td></td></tr>",
    ),
    "spans": (
        r"\begin{tabular}{lll}\multicolumn{2}{c}{\textbf{a}} & \multirow{2}{*}{b} \\ \cline{1-2} c & d & \\",
        r'<tr><td colspan="2">\textbf{a}</td><td rowspan="2">b</td></tr><tr><td>c</td><td>d</td></tr>',
    ),
    "both spans": (
        r"\begin{tabular}{ll}\multicolumn{2}{c}{\multirow{2}{*}{a}}\\ \multicolumn{2}{c}{} \\ b & c",
        '<tr><td colspan="2" rowspan="2">a</td></tr><tr></tr><tr><td>b</td><td>c</td></tr>',
    ),
}


@pytest.mark.parametrize(("latex", "html"), TABLES.values(), ids=TABLES)
def test_tables_in_latex(latex, html):
    assert tables_in(f"Words\n{latex}") == [f"<table>{html}</table>"]


def test_teds_of_a_table_in_latex_is_that_in_html():
    table = "<table><tr><td>a</td><td>b</td></tr></table>"
    assert main("teds", MARKDOWN, table) == main("teds", HTML, table) == 1
    assert main("teds", MARKDOWN.replace("a & b", "a"), table) < 1


def test_pages_count_only_for_what_they_have():
    page, text = '<p data-bbox="1 2 3 4">a</p>', "<p>a</p>"
    for metric in ("teds", "teds_struct"):
        assert score(metric, page, page) == {}
        assert of_source(metric, [(page, page), (HTML, HTML), (page, page)]) == {metric: 1}
        assert of_source(metric, [(HTML, page), (HTML, HTML)]) == {metric: 0.5}
    assert score("layout", "nonsense", text) == {}
    assert score("layout", page, text) == score("layout", text, page) == {"f1@0.5": 0, "boxes_f1@0.5": 0}
    assert of_source("layout", [("nonsense", text), (page, page), (text, page)]) == {"f1@0.5": 0.5, "boxes_f1@0.5": 0.5}
