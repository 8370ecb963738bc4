"""The rules on JSON, HTML, tool calls, tables and boxes, beside readers of these forms."""

import json
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lxml import etree
from markdown_it import MarkdownIt

from qwenvl_train.curation.rules.malformed_html import fault_of as fault_of_html
from qwenvl_train.curation.rules.malformed_json import fault_of as fault_of_json
from qwenvl_train.curation.rules.malformed_json import meant_as_json
from qwenvl_train.curation.rules.malformed_tables import cells_in, tables_in
from qwenvl_train.data.sample import Coordinates, Listing, Text, ToolCall
from tests.curation.clean_rows import GET_WEATHER, drawn, region, row
from tests.curation.judging import falls, judged

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "answer",
    [
        '[{"bbox_2d": [1, 2, 3, 4], "label": "cup"}',
        '{"a": 1,}',
        '{"a": [1, 2}',
        '{"name": "Müller", "total": ',
        "[1, 2, 3",
        '```json\n{"a": }\n```',
        "Here it is:\n```json\n[1, 2\n```\nDone.",
        '```json\n{"a": 1}\n}\n```',
        '{"a": 1}]',
        '["a" "b"]',
        "[{'bbox_2d': [1, 2, 3, 4]}]",
        '{"a": 1}\n{"b": ',
        '{"品名": "茶", "价格": 3元}',
    ],
)
def test_json_falls(answer):
    assert falls("malformed_json", answer)


@pytest.mark.parametrize(
    "answer",
    [
        '{"a": [1, 2, {"b": null}]}',
        "```json\n[]\n```",
        '{"a": 1}\n\nThis is all that I can read.',
        '{"a": 1}\n{"b": 2}\n',
        "[]",
        "[1] Smith et al.",
        "[x] done",
        "{x | x > 0}",
        "[12:30] Hello",
        "[0, 1) is an interval",
        '```python\nx = {"a": \n```',
        "{{ name }}",
        "[Speaker 1] Good morning",
        "a red cup",
        "",
    ],
)
def test_json_and_what_only_resembles_it_stays(answer):
    assert not falls("malformed_json", answer)


def test_json_lines_and_numbers_of_any_length_stay():
    assert not falls("malformed_json", '{"a": 1}\n' * 3000)
    assert not falls("malformed_json", f'{{"a": [-{"9" * 5000}]}}')
    assert falls("malformed_json", '{"a": 1}\n' * 3000 + '{"a": ')
    assert falls("malformed_json", '{"a": [' + "9" * 5000)


@given(JSON, st.sampled_from([None, 2]), st.booleans(), st.booleans())
def test_valid_json_never_falls(value, indent, is_ascii, fenced):
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    assume("```" not in text)
    assert not falls("malformed_json", f"```json\n{text}\n```" if fenced else text)


@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=3), st.data())
def test_json_falls_if_json_loads_refuses_it(value, data):
    text = json.dumps(value)
    cut = text[: data.draw(st.integers(2, len(text)))].rstrip()
    try:
        json.loads(cut)
        is_json = True
    except ValueError:
        is_json = False
    assert bool(fault_of_json(cut)) != is_json
    assert meant_as_json(text) == [text]


@pytest.mark.parametrize(
    "answer",
    [
        "<html><body><p>Text</p></body>",
        "<table><tr><td>1</td></tr>",
        "<div><b>bold</div>",
        "<div></div></div>",
        '<html><body><h1 data-bbox="1 2 3 4">Title</body></html>',
        "```html\n<ul><li>one</ul></div>\n```",
        '<table><tr><td>1</td><td data-bbox="1 2',
        "<b><i>crossed</b></i>",
        "Here is the table: <table><tr><td>1</td></tr>",
    ],
)
def test_html_falls(answer):
    assert falls("malformed_html", answer)


@pytest.mark.parametrize(
    "answer",
    [
        '<html><body>\n<p data-bbox="1 2 3 4">Text<br>more<p>next<img src="a.png"><hr/></body></html>',
        "<table><thead><tr><th>a<th>b<tbody><tr><td>1<td>2</table>",
        "<ul><li>one<li>two</ul>",
        "<dl><dt>a<dd>b</dl>",
        "<!DOCTYPE html><html><head><script>if (a < b) { x = '<div>'; }</script></head><body></body></html>",
        "<div><!-- <b> --></div>",
        "<p>a < b and c > d</p>",
        '<div title="a > b">x</div>',
        "Use <br> or <div> in a page.",
        "<ref>a cup</ref>",
        "<points x=1 y=2>cup</points>",
        "a red cup",
        "<SVG><path></SVG>",
        "<P>Text</P>",
    ],
)
def test_html_with_matching_tags_stays(answer):
    assert not falls("malformed_html", answer)


@given(
    st.lists(
        st.sampled_from(["<div>", "</div>", "<b>", "</b>", "<table>", "</table>", "<span>", "</span>", "x", "<br/>"])
    )
)
def test_tags_match_if_an_xml_parser_says_so(pieces):
    text = f"<section>{''.join(pieces)}</section>"
    try:
        etree.fromstring(text)
        is_whole = True
    except etree.XMLSyntaxError:
        is_whole = False
    assert bool(fault_of_html(text)) != is_whole


HERMES = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
XML = "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>"


@pytest.mark.parametrize(
    "answer",
    [
        HERMES[:-12],
        HERMES[11:],
        HERMES.replace("}}", "}"),
        HERMES.replace("get_weather", "get_time"),
        HERMES.replace('"name"', '"title"'),
        HERMES.replace("get_weather", ""),
        HERMES.replace("city", "town"),
        HERMES.replace('{"city": "Rome"}', '"Rome"'),
        HERMES.replace('{"city": "Rome"}', '["Rome"]'),
        HERMES + HERMES[:20],
        XML[:-12],
        XML.replace("</parameter>\n", ""),
        XML.replace("</function>\n", ""),
        XML.replace("city", "town"),
        XML.replace("=get_weather", "="),
        XML.replace("get_weather", "get_time"),
        XML.replace("<parameter=city>", "city:"),
        "<tool_call></tool_call>",
        "<tool_call>get_weather(Rome)</tool_call>",
    ],
)
def test_tool_calls_fall(answer):
    verdict = judged("malformed_tool_calls", row("And in Rome?", answer, None, tools=(GET_WEATHER,)))
    assert verdict.falls
    assert verdict.evidence


@pytest.mark.parametrize(
    "answer",
    [
        HERMES,
        XML,
        f"I will look.\n{HERMES}\n{HERMES}",
        HERMES.replace('{"city": "Rome"}', '"{\\"city\\": \\"Rome\\"}"'),
        XML + XML,
    ],
)
@pytest.mark.parametrize("tools", [(GET_WEATHER,), (GET_WEATHER["function"],), (), ({"name": "get_weather"},)])
def test_tool_calls_that_can_be_carried_out_stay(answer, tools):
    assert not judged("malformed_tool_calls", row("And in Rome?", answer, None, tools=tools)).falls


@pytest.mark.parametrize(
    ("name", "arguments", "is_wrong"),
    [
        ("get_weather", '{"city": "Rome"}', False),
        ("get_weather", "{}", True),
        ("get_time", '{"city": "Rome"}', True),
        ("get_weather", '{"city": ', True),
        ("get_weather", "[]", True),
    ],
)
def test_calls_that_a_row_gives_apart_are_judged(name, arguments, is_wrong):
    sample = row("And in Rome?", "", None, tools=(GET_WEATHER,), calls=(ToolCall(name, arguments),))
    assert judged("malformed_tool_calls", sample).falls == is_wrong


def test_rows_without_calls_are_not_judged():
    assert judged("malformed_tool_calls", row("And in Rome?", "It is sunny.", None, tools=(GET_WEATHER,))) is None


TABLE = "| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |"


@pytest.mark.parametrize(
    "answer",
    [
        TABLE + "\n| 5 |",
        TABLE + "\n| 5 | 6 | 7 |",
        "| a |\n|---|---|\n| 1 | 2 |",
        "a | b\n--- | ---\n1 | 2 | 3",
        f"Here:\n\n{TABLE[:-4]}\n\nDone.",
    ],
)
def test_tables_fall(answer):
    assert falls("malformed_tables", answer)


@pytest.mark.parametrize(
    "answer",
    [
        TABLE,
        TABLE + "\n| a \\| b | `c|d` |",
        TABLE + "\n|  |  |",
        "a | b\n--- | ---\n1 | 2",
        TABLE + "\n\nor a | b | c",
        "```python\na | b\n--- | ---\n1\n| 2 | 3 | 4 |\n```",
        "x | y",
        "---\n|x|",
        f"{TABLE}\n\n| c |\n|---|\n| 1 |",
        "| 名 | 价 |\n|-|-|\n| 茶 | 3 |",
    ],
)
def test_tables_with_equal_rows_stay(answer):
    assert not falls("malformed_tables", answer)


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "", "b c", "`d`", "e \\| f", "图"]), min_size=2, max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_cells_are_those_of_a_markdown_reader(rows):
    header = "| h " * len(rows[0]) + "|"
    text = "\n".join([header, "|---" * len(rows[0]) + "|", *(f"| {' | '.join(cells)} |" for cells in rows)])
    ((found_header, (_, *lines)),) = tables_in(text)
    # The reader fills up and cuts rows to the length of the header, so that each row is its own table here.
    for line in [found_header, *lines]:
        delimiters = "|---" * cells_in(line) + "|"
        tokens = MarkdownIt("commonmark").enable("table").parse(f"{line}\n{delimiters}")
        assert sum(token.type == "th_open" for token in tokens) == cells_in(line)


@pytest.mark.parametrize(
    ("box", "is_wrong"),
    [
        ((10, 10, 60, 50), False),
        ((0, 0, 160, 120), False),
        ((0, 0, 161, 121), False),
        ((80, 60), False),
        ((90, 10, 20, 50), True),
        ((10, 10, 10, 50), True),
        ((-9, 4, 20, 20), True),
        ((20, 20, 190, 60), True),
        ((5, 5, 20, 140), True),
        ((200, 60), True),
    ],
)
@pytest.mark.parametrize("part", [Coordinates, lambda region: Listing((region,))])
def test_given_boxes_are_compared_with_their_picture(box, is_wrong, part, tmp_path, rng):
    sample = row("Where?", "It is at", drawn(tmp_path / "a.png", rng, (160, 120)))
    answer = replace(sample.turns[1], parts=(Text("It is at "), part(region(box))))
    verdict = judged("malformed_boxes", replace(sample, turns=(sample.turns[0], answer)))
    assert verdict.falls == is_wrong


def test_boxes_of_a_missing_picture(tmp_path, rng):
    sample = row("Where?", "", drawn(tmp_path / "a.png", rng))
    outside = replace(sample.turns[1], parts=(Coordinates(region((1, 2, 3, 4), image=1)),))
    assert judged("malformed_boxes", replace(sample, turns=(sample.turns[0], outside))).falls
    unreadable = row("Where?", "", tmp_path / "none.png")
    beyond = replace(sample.turns[1], parts=(Coordinates(region((1, 2, 9999, 4))),))
    assert not judged("malformed_boxes", replace(unreadable, turns=(unreadable.turns[0], beyond))).falls


@pytest.mark.parametrize(
    ("answer", "is_wrong"),
    [
        ('[{"bbox_2d": [10, 10, 990, 1000], "label": "cup"}]', False),
        ('[{"bbox_2d": [990, 10, 20, 50]}]', True),
        ('[{"bbox_2d": [10, 10, 10, 50]}]', True),
        ('[{"bbox_2d": [10, -1, 20, 50]}]', True),
        ('{"bbox_2d": [1, 2, 3]}', True),
        ('{"bbox_2d": [1, 2, 1001, 4]}', True),
        ('{"point_2d": [500, 999]}', False),
        ('{"point_2d": [500, 1200]}', True),
        ('{"point_2d": [1, 2, 3, 4]}', True),
        ('{"bbox_2d": []}', False),
        ('{"bbox_2d": null}', False),
        ("<|box_start|>(1,2),(30,40)<|box_end|>", False),
        ("<|box_start|>(100,2),(30,40)<|box_end|>", True),
        ("<|box_start|>(500,999)<|box_end|>", False),
        ('<p data-bbox="10 20 30 40">x</p>', False),
        ('<p data-bbox="30 20 10 40">x</p>', True),
    ],
)
def test_written_boxes_fall_if_they_are_wrong_in_all_units(answer, is_wrong, tmp_path, rng):
    verdict = judged("malformed_boxes", row("Where?", answer, drawn(tmp_path / "a.png", rng)))
    assert verdict.falls == is_wrong


def test_pixels_of_large_pictures_stay(tmp_path, rng):
    answer = '[{"bbox_2d": [1100, 10, 1500, 90]}]'
    assert not judged("malformed_boxes", row("Where?", answer, drawn(tmp_path / "a.png", rng, (1600, 100)))).falls
    assert judged("malformed_boxes", row("Where?", answer, drawn(tmp_path / "b.png", rng, (1400, 100)))).falls
    assert not judged("malformed_boxes", row("Where?", answer, None)).falls
