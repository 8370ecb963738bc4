"""The similarity of tables, as trees of rows and cells."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from apted import APTED, Config
from lxml import etree, html
from rapidfuzz.distance import Levenshtein

from qwenvl_train.evaluation.metrics.metric import Metric, Question
from qwenvl_train.evaluation.metrics.tables import tables_in

_CELLS = ("td", "th")
_MANY = 500
_FAR_TOO_MANY = 10
"""An answer with more nodes than the first, and this many times as many as expected, scores 0 instead of at most 0.1:
of rows that a model repeats without end, the distance takes minutes."""


@dataclass
class _Node:
    tag: str
    spans: tuple[str, str] = ("1", "1")
    content: list[str] = field(default_factory=list)
    """The characters and tags in a cell. Empty for other nodes."""
    children: list["_Node"] = field(default_factory=list)


class _Costs(Config):
    def rename(self, node1: _Node, node2: _Node) -> float:
        if (node1.tag, node1.spans) != (node2.tag, node2.spans):
            return 1.0
        return Levenshtein.normalized_distance(node1.content, node2.content)


def teds(answer: str, expected: str, question: Question) -> dict[str, float]:
    return _scores("teds", answer, expected, with_content=True)


def teds_struct(answer: str, expected: str, question: Question) -> dict[str, float]:
    return _scores("teds_struct", answer, expected, with_content=False)


def _scores(name: str, answer: str, expected: str, with_content: bool) -> dict[str, float]:
    """Return the mean over the tables, which are compared in order. A missing one or one too many counts 0. Without any
    table in both texts, there is no score."""
    pairs = list(zip_longest(tables_in(answer), tables_in(expected)))
    found = [_similarity(given, wanted, with_content) for given, wanted in pairs if given and wanted]
    return {name: sum(found) / len(pairs)} if pairs else {}


def _similarity(answer: str, expected: str, with_content: bool) -> float:
    tables = [_table(text) for text in (answer, expected)]
    # Tags inside cells count as nodes here, as in PubTabNet's code, although the trees end at the cells.
    counts = [len(table.xpath(".//*")) for table in tables]
    if counts[0] > max(_MANY, _FAR_TOO_MANY * counts[1]):
        return 0.0
    nodes = max(counts)
    distance = APTED(*(_tree(table, with_content) for table in tables), _Costs()).compute_edit_distance()
    return max(0.0, 1 - distance / nodes) if nodes else 1.0


def _table(text: str) -> html.HtmlElement:
    """Return a table without comments. One whose tag is broken is empty."""
    found = html.document_fromstring(text).xpath("//table")
    table = found[0] if found else html.Element("table")
    etree.strip_tags(table, etree.Comment)
    return table


def _tree(element: html.HtmlElement, with_content: bool) -> _Node:
    if element.tag in _CELLS:
        spans = (element.get("colspan", "1"), element.get("rowspan", "1"))
        return _Node("td", spans, list(_tokens(element)) if with_content else [])
    return _Node(element.tag, children=[_tree(child, with_content) for child in element])


def _tokens(element: html.HtmlElement) -> Iterator[str]:
    """Yield what is in an element: characters and tags."""
    yield from element.text or ""
    for child in element:
        yield f"<{child.tag}>"
        yield from _tokens(child)
        yield f"</{child.tag}>"
        yield from child.tail or ""


TEDS = Metric(
    "teds",
    "TEDS of PubTabNet: 1 - tree edit distance / nodes of the larger table; th counts as td, tables in Markdown are "
    "read as HTML, several tables are compared in order and averaged; mean over samples with tables; more than 500 "
    "nodes, ten times as many as expected, score 0",
    teds,
)
TEDS_STRUCT = Metric("teds_struct", "TEDS without the contents of cells (PubTabNet's structure_only)", teds_struct)
