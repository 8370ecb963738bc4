"""Answers that are meant as HTML and whose tags do not match."""

import re
from collections import Counter
from collections.abc import Iterator

from qwenvl_train.curation.forms import blocks, form_of
from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict, quoted
from qwenvl_train.curation.view import RowView


def _listed(names: str) -> frozenset[str]:
    return frozenset(names.split())


_NAMES = _listed(
    "html head title body base link meta style script article section nav aside h1 h2 h3 h4 h5 h6 hgroup "
    "header footer address main p hr pre blockquote ol ul menu li dl dt dd figure figcaption div a em "
    "strong small s cite q dfn abbr ruby rt rp data time code var samp kbd sub sup i b u mark bdi bdo "
    "span br wbr ins del picture source img iframe embed object video audio track map area table caption "
    "colgroup col tbody thead tfoot tr td th form label input button select datalist optgroup option "
    "textarea output progress meter fieldset legend details summary dialog center font tt strike big svg "
    "math"
)
_VOID = _listed("area base br col embed hr img input link meta source track wbr")
# The end tags that HTML allows to leave out, except for those of html and body: where they were opened and are not
# closed, the answer is cut off.
_OPTIONAL = _listed("li dt dd p rt rp optgroup option colgroup caption thead tbody tfoot tr td th head")
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<!\[CDATA\[.*?(?:\]\]>|\Z)|"
    r"<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:\s[^<>\"']*(?:\"[^\"]*\"[^<>\"']*|'[^']*'[^<>\"']*)*)?)(/?)>",
    re.DOTALL | re.IGNORECASE,
)
# The elements whose content is not HTML, with their end tags.
_FOREIGN = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE | re.ASCII) for name in ("script", "style", "svg", "math")}
_CUT_OFF = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?$|</?$")
_TABLES = re.compile(r"<table(?=[\s>]).*(?:</table\s*>|\Z)", re.DOTALL | re.IGNORECASE)


def judge(row: RowView, settings: RuleSection) -> Verdict | None:
    texts = [text for answer in row.answers for text in meant_as_html(answer.text)]
    if not texts:
        return None
    faults = filter(None, map(fault_of, texts))
    return next((Verdict(True, evidence=fault) for fault in faults), Verdict(False))


def meant_as_html(answer: str) -> list[str]:
    """Return the parts of an answer that are meant as HTML: its blocks of HTML, the whole, or its tables."""
    if "<" not in answer:
        return []
    found = blocks(answer, "html")
    if found:
        return found
    if form_of(answer) == "html":
        return [answer]
    return [found[0] for found in [_TABLES.search(answer)] if found and "<td" in found[0]]


def fault_of(text: str) -> str:
    """Return which tag has no partner, in words. Empty if all have one, or may do without."""
    unclosed: list[str] = []
    counts = Counter[str]()
    for tag in _tags_in(text):
        name = (tag[2] or "").lower()
        if name not in _NAMES or name in _VOID or tag[4]:
            continue
        if not tag[1]:
            unclosed.append(name)
            counts[name] += 1
        elif counts[name]:
            counts[name] -= 1
            # The end of an element is also that of elements in it whose end tags may be left out.
            while (last := unclosed.pop()) != name:
                counts[last] -= 1
                if last not in _OPTIONAL:
                    return f"<{last}> is not closed before {quoted(tag[0])}"
        else:
            return f"{quoted(tag[0])} closes nothing"
    if _CUT_OFF.search(text.rstrip()):
        return f"it ends in a tag, {quoted(text.rstrip()[-30:])}"
    return next((f"<{name}> is not closed" for name in unclosed if name not in _OPTIONAL), "")


def _tags_in(text: str) -> Iterator[re.Match[str]]:
    """Yield the tags and comments of a text, without the elements whose content is not HTML."""
    at, never_closed = 0, set[str]()
    while tag := _TAG.search(text, at):
        at = tag.end()
        name = (tag[2] or "").lower()
        if name in _FOREIGN and not tag[1] and name not in never_closed:
            if closing := _FOREIGN[name].search(text, at):
                at = closing.end()
                continue
            # What is not found once is not searched again, which would take time by the square of the length.
            never_closed.add(name)
        yield tag


RULE = Rule("malformed_html", "meant as HTML, but with tags that do not match", True, judge)
