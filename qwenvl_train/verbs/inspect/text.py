"""The output of inspect on the terminal. Text that the loss counts is highlighted, and pictures and clips are described
in a few words."""

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from qwenvl_train.reporting.console import say
from qwenvl_train.reporting.problems import told_once
from qwenvl_train.reporting.wording import count, many, percent
from qwenvl_train.verbs.inspect.facts import (
    Broken,
    Clip,
    Inspected,
    Overview,
    TokenSpan,
    file_name,
    sides,
    visible,
)

TRAINED = "bold underline green"
OPEN, CLOSE = "⟦", "⟧"
"""The brackets around text that the loss counts. They are used where neither colour nor underline is visible."""

_INDENT = "    "
_SHOWN_PROBLEMS = 10


class InspectionText:
    def __init__(self, console: Console):
        self._console = console
        self._styled = console.is_terminal

    def files(self, files: list[str]) -> None:
        for line in files:
            self._say(line)
        self._say("")
        legend = Text("underlined green", TRAINED) if self._styled else Text(f"{OPEN}…{CLOSE}")
        self._say(legend + Text(" marks supervised tokens", "not bold not underline default"))

    def sample(self, number: int, total: int, item: Inspected | Broken) -> None:
        name = f"{item.source}:{item.line}" + (f"  id {item.id}" if item.id is not None else "")
        self._title(f"{number} of {total}  {visible(name)}")
        if item.problem:
            self._say(Text(f"cannot be trained on: {visible(item.problem)}", "bold red"))
        if isinstance(item, Broken):
            return
        self._say(_counts(item))
        for mark in item.marks:
            where = f"image {mark.picture + 1}, " if len(item.pictures) > 1 else ""
            self._say(where + mark.description)
        described: set[int] = set()
        for turn in item.turns:
            self._say(Text(turn.role, "bold cyan") + Text(f"  {many(turn.tokens, 'token')}", "not bold dim default"))
            self._say(self._words(item, turn.spans, described))

    def overview(self, overview: Overview) -> None:
        self._title(overview.extent)
        for line in overview_lines(overview):
            self._say(line)
        problems, more = told_once(overview.problems, _SHOWN_PROBLEMS)
        for problem in problems:
            self._say(Text(f"  {visible(problem)}", "red"))
        if more:
            self._say(f"  and {many(more, 'row')} more")

    def _words(self, item: Inspected, spans: tuple[TokenSpan, ...], described: set[int]) -> Text:
        """Return the text of a turn. `described` holds the indices of the media that were already described."""
        text, trained = Text(_INDENT), False
        for span in spans:
            if span.trained != trained and not self._styled:
                text.append(OPEN if span.trained else CLOSE)
            trained = span.trained
            if span.medium is not None:
                text.append(medium_in_words(item, span, first=span.medium not in described), "bold magenta")
                described.add(span.medium)
                continue
            style = TRAINED if span.trained else ("dim" if span.control else "")
            first, *rest = visible(span.text).split("\n")
            text.append(first, style)
            for line in rest:
                text.append(f"\n{_INDENT}").append(line, style)
        if trained and not self._styled:
            text.append(CLOSE)
        # Every turn ends with a line break, which is removed here.
        text.rstrip()
        return text

    def _title(self, title: str) -> None:
        self._say("")
        if self._styled:
            self._console.print(Rule(Text(title, "bold"), align="left"))
        else:
            self._say(f"--- {title}")

    def _say(self, line: Text | str) -> None:
        say(self._console, line, hanging=len(_INDENT))


def medium_in_words(item: Inspected, span: TokenSpan, first: bool) -> str:
    """Return a description such as: [image 1: cat.jpg 640×480 → 616×476, 374 tokens]"""
    assert span.medium is not None
    medium, name = item.media[span.medium], item.name_of(span)
    tokens = many(span.stop - span.start, "token")
    if not first:
        return f"[{name}: {tokens}]"
    sizes = f"{visible(file_name(medium))} {sides(medium.original)} → {sides(medium.resized)}"
    timing = f", {clip_in_words(medium)}" if isinstance(medium, Clip) else ""
    return f"[{name}: {sizes}{timing}, {tokens}]"


def clip_in_words(clip: Clip) -> str:
    """Return a description such as: 8 frames from 0.0 to 3.5 s, 2 per second"""
    return f"{clip.frames} frames from {clip.seconds[0]:.1f} to {clip.seconds[-1]:.1f} s, {clip.fps:.3g} per second"


def overview_lines(overview: Overview) -> list[str]:
    """Return the lines that describe the source."""
    usable = len(overview.lengths)
    headers = ", judged by the headers of their media" if overview.media else ""
    lines = [f"{many(overview.rows, 'row')}, {count(usable)} of them can be trained on{headers}"]
    if usable:
        share = percent(overview.supervised / overview.tokens)
        percentiles = {"shortest": 0, "median": 50, "90th percentile": 90, "99th percentile": 99, "longest": 100}
        lengths = ", ".join(f"{name} {count(overview.percentile(part))}" for name, part in percentiles.items())
        lines += [
            f"{count(overview.tokens)} tokens, {count(overview.supervised)} of them supervised ({share}); "
            f"{count(overview.media)} images and videos",
            f"tokens per sample: {lengths}",
        ]
    if overview.max_length is not None:
        lines.append(f"data.max_length={overview.max_length}: {limit_in_words(overview)}")
    lines += [*overview.notes, *overview.mixture]
    if overview.rows_per_epoch is not None:
        filled = "" if overview.fills is None else f", {percent(float(overview.fills.mean()))} filled"
        lines.append(f"an epoch has {many(overview.rows_per_epoch, 'micro-batch')} of {overview.row}{filled}")
        if overview.fitted:
            lines.append(overview.fitted)
    elif overview.fills is not None:
        packs = f"{many(len(overview.fills), 'packed row')} of up to {overview.max_length} tokens"
        lines.append(f"packed into {packs}, {percent(float(overview.fills.mean()))} filled")
    if overview.problems:
        lines.append(f"{many(len(overview.problems), 'row')} cannot be trained on; {overview.consequence}")
    return lines


def limit_in_words(overview: Overview) -> str:
    shrunk = [f"{many(overview.shrunk, 'sample')} downscaled"] if overview.shrunk else []
    over = [f"{many(overview.too_long, 'row')} too long"] if overview.too_long else []
    return " and ".join(shrunk + over) or ("every sample fits" if len(overview.lengths) else "no usable row")


def _counts(item: Inspected) -> str:
    share = percent(item.supervised / item.length)
    line = f"{many(item.length, 'token')}, {count(item.supervised)} supervised ({share}), {count(item.visual)} visual"
    return line + (f"; downscaled to {percent(item.shrink)} of the pixels" if item.shrink < 1 else "")
