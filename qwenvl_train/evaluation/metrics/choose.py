"""The choice of metrics for `auto`, from expected answers and their questions alone."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qwenvl_train.data.render.written import page_elements, written_regions
from qwenvl_train.evaluation.metrics.choice import chosen_letter, options_in
from qwenvl_train.evaluation.metrics.json_text import json_in, objects_in
from qwenvl_train.evaluation.metrics.number import number_of
from qwenvl_train.evaluation.metrics.spans import spans_in
from qwenvl_train.evaluation.metrics.tables import tables_in
from qwenvl_train.evaluation.metrics.tool_calls import first_call
from qwenvl_train.families.thoughts import without_thoughts
from qwenvl_train.reporting.wording import many

NEARLY_ALL = 0.9
"""The share of a source's expected answers that must be of one kind."""
SHORT_WORDS, SHORT_CHARACTERS = 15, 100
"""The most that a short answer has. The second is for languages without spaces."""
_TIME_IN_ANSWER = re.compile(r"\d:\d\d|\d\s*(?:s|sec|secs|seconds?)\b", re.IGNORECASE)
_TIME_KEYS = {"start", "start_time", "start_timestamp", "time", "timestamp", "timestamps", "span"}
_TIME_IN_PROMPT = re.compile(r"\b(?:when|moments?|time\w*|seconds?|span|segment|start|clip|video)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    metrics: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Kind:
    """A kind of expected answer."""

    metrics: tuple[str, ...]
    reason: str
    general: str | None
    """The more general kind, for a source whose answers are not nearly all of this one."""


KINDS = {
    "action": Kind(("agent_action",), "the expected answer is a tool call", "text"),
    "page": Kind(
        ("page_text", "layout", "teds"), "the expected answer is a page with the boxes of its elements", "text"
    ),
    "regions": Kind(("grounding",), "the expected answer has boxes or points", "text"),
    "span": Kind(("temporal",), "the expected answer is a span of time", "text"),
    "table": Kind(("teds", "edit_similarity"), "the expected answer has a table", "text"),
    "fields": Kind(("fields",), "the expected answer is a JSON object", "text"),
    "option": Kind(("choice",), "the expected answer is one of the options in the question", "short"),
    "number": Kind(("number", "exact_match"), "the expected answer is a number", "short"),
    "short": Kind(("exact_match", "anls"), f"the expected answer has at most {SHORT_WORDS} words", "text"),
    "text": Kind(
        ("edit_similarity",),
        "the expected answer is text; edit distance tells how alike the words are, and no metric here judges meaning",
        None,
    ),
}


def choose(expected: str, prompt: str = "") -> Choice:
    """Return the metrics for one expected answer."""
    kind = KINDS[_kind_of(without_thoughts(expected), prompt)]
    return Choice(kind.metrics, kind.reason)


def choose_for_source(samples: Sequence[tuple[str, str]]) -> Choice:
    """Return the metrics for a source, from the expected answer and the prompt of each of its samples, of which there
    is at least one. It is the most special kind of answer that nearly all of them have."""
    own = Counter(_kind_of(without_thoughts(expected), prompt) for expected, prompt in samples)
    counts: Counter[str] = Counter()
    for kind_name, count in own.items():
        for general in _generalized(kind_name):
            counts[general] += count
    # Kinds come in the order of KINDS, in which the more general ones are last.
    name = next(name for name in KINDS if counts[name] >= NEARLY_ALL * len(samples))
    kind, share = KINDS[name], counts[name] / len(samples)
    if own[name] >= NEARLY_ALL * len(samples):
        counted = "all" if own[name] == len(samples) else f"{100 * share:.0f} % of"
        reason = f"{counted} {many(len(samples), 'answer')}: {kind.reason}"
    else:
        mixed = ", ".join(f"{100 * count / len(samples):.0f} % {one}" for one, count in own.most_common())
        reason = (
            f"the {len(samples):,} answers are of several kinds ({mixed}), scored as the general one: {kind.reason}"
        )
    return Choice(kind.metrics, reason)


def _generalized(name: str | None) -> Iterator[str]:
    """Yield a kind and all more general ones."""
    while name:
        yield name
        name = KINDS[name].general


def _kind_of(expected: str, prompt: str) -> str:
    options = options_in(prompt)
    tree = json_in(expected)
    tests = {
        "action": first_call(expected) is not None,
        "page": any(True for _ in page_elements(expected)),
        "regions": any(True for _ in written_regions(expected)),
        "span": _is_span(expected, tree, prompt),
        "table": bool(tables_in(expected)),
        "fields": any(True for _ in objects_in(tree)),
        "option": bool(options) and chosen_letter(expected, options) is not None,
        "number": number_of(expected) is not None,
        "short": len(expected.split()) <= SHORT_WORDS and len(expected) <= SHORT_CHARACTERS,
    }
    return next((kind for kind, holds in tests.items() if holds), "text")


def _is_span(expected: str, tree: Any, prompt: str) -> bool:
    if not spans_in(expected):
        return False
    if tree is not None:
        return any(key.lower() in _TIME_KEYS or spans_in(key) for one in objects_in(tree) for key in one)
    said = _TIME_IN_ANSWER.search(expected) or _TIME_IN_PROMPT.search(prompt)
    return bool(said) and len(expected.split()) <= SHORT_WORDS
