"""The one form that every accepted row is converted to; nothing after `formats` knows another."""

from dataclasses import dataclass, fields, replace
from typing import Any

Content = str | bytes
"""A file: its path, or itself, still encoded."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Limits:
    """What a row says of the size of one picture, or of one frame; None takes the model's own."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None
    """The two are given together, and are rounded to whole tokens."""


@dataclass(frozen=True)
class Image:
    content: Content
    limits: Limits = Limits()

    @property
    def contents(self) -> tuple[Content, ...]:
        return (self.content,)


@dataclass(frozen=True)
class Sampling:
    """What a row says of which frames to take, and of the whole clip; None takes the model's own."""

    fps: float | None = None
    """Frames to take from each second; of a list of frames, the rate at which they were taken."""
    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    video_start: float | None = None
    video_end: float | None = None
    """In seconds."""
    total_pixels: int | None = None
    """Of all frames together."""


@dataclass(frozen=True)
class Video:
    content: Content | tuple[Content, ...]
    """A video file, or its frames as pictures."""
    limits: Limits = Limits()
    sampling: Sampling = Sampling()

    @property
    def contents(self) -> tuple[Content, ...]:
        return self.content if isinstance(self.content, tuple) else (self.content,)


@dataclass(frozen=True)
class Region:
    """A place in a picture, in pixels of the original as it is seen: `x1, y1, x2, y2`, or `x, y` for a point."""

    coordinates: tuple[float, ...]
    label: str
    image: int
    """Which of the sample's pictures, counted from 0."""


@dataclass(frozen=True)
class Coordinates:
    """Stands for one region's numbers, in the words of the family."""

    region: Region


@dataclass(frozen=True)
class Reference:
    """Stands for the name of an object that the text points at."""

    label: str


@dataclass(frozen=True)
class Listing:
    """Stands for all of these regions with their labels, as the published models answer."""

    regions: tuple[Region, ...]


Media = Image | Video
Part = Text | Image | Video | Coordinates | Reference | Listing


@dataclass(frozen=True)
class Turn:
    role: str
    """system, user, assistant or tool"""
    parts: tuple[Part, ...]
    train: bool
    """Whether the loss counts this turn; only an assistant's can."""


@dataclass(frozen=True)
class Sample:
    id: str
    source: str
    line: int
    """The row in its file, counted from 1."""
    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()
    """JSON schemas of the functions that the assistant may call."""
    rejected: tuple[Turn, ...] = ()
    """In a preference row, the turns that lost against those of `turns` from `shared` on."""
    shared: int = 0
    """With how many turns both conversations of a preference row begin; none where they are about other pictures."""

    @property
    def where(self) -> str:
        """How an error names this row."""
        return place_of(self.source, self.line, self.id)

    @property
    def media(self) -> list[Media]:
        """The shared ones once."""
        return [part for turn in self.turns + self.rejected for part in turn.parts if isinstance(part, Image | Video)]

    @property
    def refused(self) -> "Sample":
        """The whole conversation that lost."""
        return replace(self, turns=self.turns[: self.shared] + self.rejected, rejected=(), shared=0)

    @property
    def preferred(self) -> "Sample":
        """The one that won."""
        return replace(self, rejected=(), shared=0)

    @property
    def images(self) -> list[Image]:
        return [part for part in self.media if isinstance(part, Image)]


def place_of(source: str, line: int, id: str) -> str:
    """One line, however long the id is."""
    words = " ".join(id.split())
    return f"{source}:{line} (id {words if len(words) <= 80 else f'{words[:79]}…'})"


def given(options: Limits | Sampling) -> dict[str, Any]:
    """Only what the row says."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in values.items() if value is not None}
