"""What is told of samples before a run, as plain facts; text, page and JSON are made of these."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Size = tuple[int, int]
"""height, width"""


@dataclass(frozen=True)
class Picture:
    path: str | None
    """None where the row holds the file itself."""
    original: Size
    resized: Size
    grid: tuple[int, int, int]
    """In patches."""
    cell: int
    """The side of one token, in pixels of the resized picture."""
    tokens: int


@dataclass(frozen=True)
class Clip:
    path: str | list[str | None] | None
    """A list where the frames are pictures of their own."""
    original: Size
    resized: Size
    grid: tuple[int, int, int]
    cell: int
    tokens: int
    seconds: tuple[float, ...]
    """When each of its frames is shown."""
    fps: float
    """The rate at which frames were taken."""
    timestamps: tuple[float, ...]
    """In seconds, of each layer of the grid."""

    @property
    def frames(self) -> int:
        return len(self.seconds)


Medium = Picture | Clip


@dataclass(frozen=True)
class Mark:
    """A box or a point."""

    picture: int
    """Which of the sample's pictures, counted from 0."""
    label: str
    given: tuple[float, ...] | None
    """In pixels of the original; None where the row has them in its words already."""
    written: tuple[float, ...]
    """The numbers in the text."""
    drawn: tuple[float, ...]
    """Where those numbers lie in the resized picture."""
    inside: bool
    """Whether all of it lies in the picture."""

    @property
    def told(self) -> str:
        """box cat: [40, 30, 200, 150] in pixels of the original, written [28, 21, 140, 105]"""
        kind = "box" if len(self.written) == 4 else "point"
        name = f"{kind} {visible(self.label)}" if self.label else kind
        if self.given is None:
            outside = "" if self.inside else ", which is outside the picture"
            return f"{name}: {_numbers(self.written)} as the row has it{outside}"
        return f"{name}: {_numbers(self.given)} in pixels of the original, written {_numbers(self.written)}"


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens of one kind: words, control tokens, or the placeholders of one picture or clip."""

    start: int
    stop: int
    trained: bool
    control: bool
    medium: int | None
    text: str


@dataclass(frozen=True)
class ShownTurn:
    role: str
    runs: tuple[Run, ...]

    @property
    def tokens(self) -> int:
        return self.runs[-1].stop - self.runs[0].start


@dataclass(frozen=True)
class Inspected:
    """One sample, as the model will see it."""

    id: str
    source: str
    line: int
    problem: str | None
    """Why no run will train on it."""
    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray
    trained: np.ndarray
    """Which tokens the loss counts."""
    turns: tuple[ShownTurn, ...]
    media: tuple[Medium, ...]
    marks: tuple[Mark, ...]
    shrink: float
    """Share of the pixels that its media keep."""

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        return int(self.trained.sum())

    @property
    def visual(self) -> int:
        return sum(medium.tokens for medium in self.media)

    @property
    def supervised_text(self) -> list[str]:
        """Each stretch of tokens that the loss counts, in words."""
        spans: list[str] = []
        end = -1
        for run in self.runs:
            if run.trained and run.start == end:
                spans[-1] += run.text
            elif run.trained:
                spans.append(run.text)
            end = run.stop if run.trained else -1
        return spans

    @property
    def runs(self) -> Iterator[Run]:
        return (run for turn in self.turns for run in turn.runs)

    @property
    def names(self) -> list[str]:
        """What each of its media is called: picture 1, video 1, picture 2."""
        counted = {Picture: 0, Clip: 0}
        names = []
        for medium in self.media:
            counted[type(medium)] += 1
            names.append(f"{'picture' if isinstance(medium, Picture) else 'video'} {counted[type(medium)]}")
        return names

    def name_of(self, run: Run) -> str:
        """The same, or video 1, pair 2, where the frame pairs of a clip stand apart."""
        assert run.medium is not None
        starts = [other.start for other in self.runs if other.medium == run.medium]
        name = self.names[run.medium]
        return name if len(starts) == 1 else f"{name}, pair {starts.index(run.start) + 1}"

    @property
    def pictures(self) -> list[tuple[int, Picture]]:
        """With their place among the media."""
        return [(place, medium) for place, medium in enumerate(self.media) if isinstance(medium, Picture)]


@dataclass(frozen=True)
class Broken:
    """A row that no sample could be made of."""

    id: str | None
    source: str
    line: int
    problem: str


@dataclass(frozen=True)
class Overview:
    """The whole source, or what a stream reads first."""

    rows: int
    lengths: np.ndarray
    """Tokens of each sample that can be used."""
    supervised: int
    media: int
    shrunk: int
    max_length: int | None
    problems: list[str]
    """Reasons of the rows that cannot be used, in the order of the files."""
    too_long: int
    """How many of these are over max_length."""
    consequence: str
    """What a run does about them."""
    ends_run: bool
    """Whether that is to end before it trains."""
    rows_per_epoch: int | None
    """None where the source is not one to train on, has nothing to train on, or is a stream."""
    row: str
    """What goes into each of these."""
    fills: np.ndarray | None
    """Of each packed row of an epoch, or of each pack where that is not known, the share of its room that samples
    fill."""
    extent: str = "the whole source"
    """What all this is about."""
    mixture: Sequence[str] = ()
    """What an epoch takes of each entry, in words."""

    @property
    def filled(self) -> str:
        """What `fills` is about."""
        return "pack" if self.rows_per_epoch is None else "row"

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))

    def percentile(self, percent: float) -> int:
        """A length that so many percent of the samples do not exceed."""
        return int(np.percentile(self.lengths, percent, method="inverted_cdf"))


def file_name(medium: Medium) -> str:
    """The last part of its path; the folders before it are long, and mostly the same."""
    match medium.path:
        case None:
            return "in the row"
        case str(path):
            return Path(path).name
        case frames:
            return f"{len(frames)} pictures"


def sides(size: Size) -> str:
    """640×480, as people write it: the width first."""
    return f"{size[1]}×{size[0]}"


def visible(text: str) -> str:
    """Control characters as their pictures, since a terminal would obey some and show none."""
    return text.translate(_PICTURES)


_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


def _numbers(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
