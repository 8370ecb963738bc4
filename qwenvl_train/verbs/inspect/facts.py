"""The facts about samples that inspect shows. The terminal, the page and the JSON output are all made from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Size = tuple[int, int]
"""The height and the width, in pixels."""


@dataclass(frozen=True)
class Picture:
    path: str | None
    """The path of the picture, or None if the row holds the file itself."""
    original: Size
    resized: Size
    grid: tuple[int, int, int]
    """The number of patches in time, height and width."""
    cell: int
    """The side of the square that one token covers, in pixels of the resized picture."""
    tokens: int


@dataclass(frozen=True)
class Clip:
    path: str | list[str | None] | None
    """The path of the clip, a list of paths if each frame is a separate picture, or None if the row holds the file."""
    original: Size
    resized: Size
    grid: tuple[int, int, int]
    cell: int
    tokens: int
    seconds: tuple[float, ...]
    """The time of each frame, in seconds."""
    fps: float
    """The rate at which frames were taken, in frames per second."""
    timestamps: tuple[float, ...]
    """The time of each layer of the grid, in seconds."""

    @property
    def frames(self) -> int:
        return len(self.seconds)


Medium = Picture | Clip


@dataclass(frozen=True)
class Mark:
    """A box, a point or an arrow from one point to another in a picture."""

    picture: int
    """The index of the picture among the pictures of the sample, counted from 0."""
    label: str
    given: tuple[float, ...] | None
    """The coordinates in pixels of the original picture, or None if the text of the row already has them as numbers."""
    written: tuple[float, ...]
    """The numbers as they stand in the text."""
    drawn: tuple[float, ...]
    """The coordinates of the same place in pixels of the resized picture."""
    inside: bool
    """Whether the whole box or point lies in the picture."""
    is_arrow: bool = False
    """Whether the four numbers are those of an arrow, such as a swipe, and not of a box."""

    @property
    def description(self) -> str:
        """A description such as: box cat: [40, 30, 200, 150] in pixels of the original, written as [28, 21, 140, 99]"""
        kind = "arrow" if self.is_arrow else "box" if len(self.written) == 4 else "point"
        name = f"{kind} {visible(self.label)}" if self.label else kind
        if self.given is None:
            outside = "" if self.inside else ", outside the image"
            return f"{name}: {_numbers(self.written)} as written in the row{outside}"
        return f"{name}: {_numbers(self.given)} in pixels of the original, written as {_numbers(self.written)}"


@dataclass(frozen=True)
class TokenSpan:
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
    spans: tuple[TokenSpan, ...]

    @property
    def tokens(self) -> int:
        return self.spans[-1].stop - self.spans[0].start


@dataclass(frozen=True)
class Inspected:
    """A sample as the model will see it."""

    id: str
    source: str
    line: int
    problem: str | None
    """The reason why no run can train on this sample, or None if there is no such reason."""
    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray
    trained: np.ndarray
    """Whether the loss counts each token."""
    turns: tuple[ShownTurn, ...]
    media: tuple[Medium, ...]
    marks: tuple[Mark, ...]
    shrink: float
    """The share of their pixels that the media of the sample keep. It is below 1 if they were shrunk to fit."""

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
        """The text of each stretch of tokens that the loss counts."""
        stretches: list[str] = []
        end = -1
        for span in self.spans:
            if span.trained and span.start == end:
                stretches[-1] += span.text
            elif span.trained:
                stretches.append(span.text)
            end = span.stop if span.trained else -1
        return stretches

    @property
    def spans(self) -> Iterator[TokenSpan]:
        return (span for turn in self.turns for span in turn.spans)

    @property
    def names(self) -> list[str]:
        """The names of the media of the sample, such as image 1, video 1, image 2."""
        counted = {Picture: 0, Clip: 0}
        names = []
        for medium in self.media:
            counted[type(medium)] += 1
            names.append(f"{'image' if isinstance(medium, Picture) else 'video'} {counted[type(medium)]}")
        return names

    def name_of(self, span: TokenSpan) -> str:
        """Return the name of the picture or clip of a span. If the frame pairs of a clip stand apart in the text, the
        name includes the number of the pair, such as video 1, frame pair 2."""
        assert span.medium is not None
        starts = [other.start for other in self.spans if other.medium == span.medium]
        name = self.names[span.medium]
        return name if len(starts) == 1 else f"{name}, frame pair {starts.index(span.start) + 1}"

    @property
    def pictures(self) -> list[tuple[int, Picture]]:
        """The pictures of the sample, each with its index among the media."""
        return [(place, medium) for place, medium in enumerate(self.media) if isinstance(medium, Picture)]


@dataclass(frozen=True)
class Broken:
    """A raw row that could not be turned into a rendered sample."""

    id: str | None
    source: str
    line: int
    problem: str


@dataclass(frozen=True)
class Overview:
    """The figures of the whole source, or of the rows that a stream reads first."""

    rows: int
    lengths: np.ndarray
    """The number of tokens of each sample that can be used."""
    supervised: int
    media: int
    shrunk: int
    max_length: int | None
    problems: list[str]
    """The reason for each row that cannot be used, in the order of the files."""
    too_long: int
    """The number of rows that cannot be used because they are over max_length."""
    consequence: str
    """What a run does about the rows that cannot be used, in words."""
    ends_run: bool
    """Whether the rows that cannot be used end a run before it trains."""
    rows_per_epoch: int | None
    """The number of rows in an epoch. It is None if the source is held out, has nothing to train on, or is a stream."""
    row: str
    """What goes into each row of an epoch, in words."""
    fills: np.ndarray | None
    """The share of the room that samples fill, for each packed row of an epoch. If the rows of an epoch are not known,
    there is one share for each pack. It is None without packing."""
    extent: str = "all rows"
    """The part of the source that these figures describe, in words."""
    fitted: str | None = None
    """How the size of a step is fitted to a small dataset, in words."""
    mixture: Sequence[str] = ()
    """What an epoch takes from each entry, in words."""
    notes: Sequence[str] = ()
    """What is said about the options that rows set, in words."""

    @property
    def filled(self) -> str:
        """The unit that each value of `fills` describes."""
        return "packed row" if self.rows_per_epoch is None else "micro-batch"

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))

    def percentile(self, percent: float) -> int:
        """Return a length that `percent` percent of the samples do not exceed."""
        return int(np.percentile(self.lengths, percent, method="inverted_cdf"))


def file_name(medium: Medium) -> str:
    """Return the last part of the path. The folders before it are long, and mostly the same for all files."""
    match medium.path:
        case None:
            return "in the row"
        case str(path):
            return Path(path).name
        case frames:
            return f"{len(frames)} images"


def sides(size: Size) -> str:
    """Return a size such as 640×480, with the width first, as people write it."""
    return f"{size[1]}×{size[0]}"


def visible(text: str) -> str:
    """Replace control characters with symbols, since a terminal would execute some of them and display none."""
    return text.translate(_PICTURES)


_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


def _numbers(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
