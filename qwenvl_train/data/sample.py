"""The sample, the common form that every raw row is converted to. Code after `formats` handles samples only."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from qwenvl_train.families.agent_tools import AgentTool

Detail = Literal["low", "high", "auto"]
"""The values of `detail` in the image parts of OpenAI's format."""
Box = tuple[float, float, float, float]
"""`x1, y1, x2, y2`."""
Content = str | bytes
"""The path of a file, or the file's own bytes, still encoded."""


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Limits:
    """The size that a raw row sets for one picture or one frame. None stands for the model's own setting."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None
    """`resized_height` and `resized_width` are given together, in pixels, and are rounded to whole tokens."""


@dataclass(frozen=True)
class Image:
    content: Content
    limits: Limits = Limits()
    detail: Detail | None = None
    """low makes the picture at most 512 × 512 pixels. high and auto leave it to the other limits, as None does."""

    @property
    def contents(self) -> tuple[Content, ...]:
        return (self.content,)


@dataclass(frozen=True)
class Sampling:
    """The frames that a raw row selects from a clip, and the clip's total size. None stands for the model's setting."""

    fps: float | None = None
    """Number of frames to take from each second. For a list of frames, the rate at which they were taken."""
    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    video_start: float | None = None
    video_end: float | None = None
    """`video_start` and `video_end` are in seconds."""
    total_pixels: int | None = None
    """Number of pixels of all frames together."""


@dataclass(frozen=True)
class Video:
    content: Content | tuple[Content, ...]
    """One video file, or the frames of the clip as pictures."""
    limits: Limits = Limits()
    sampling: Sampling = Sampling()

    @property
    def contents(self) -> tuple[Content, ...]:
        return self.content if isinstance(self.content, tuple) else (self.content,)


@dataclass(frozen=True)
class Region:
    """A box or a point in a picture."""

    coordinates: tuple[float, ...]
    """`x1, y1, x2, y2` of a box, or `x, y` of a point, in pixels of the original picture as it is displayed."""
    label: str
    image: int
    """Index of the picture among the sample's pictures, counted from 0."""


@dataclass(frozen=True)
class Coordinates:
    """A part of a turn that is replaced by the coordinates of one region, in the notation of the model family."""

    region: Region
    separator: str | None = None
    """With a separator, only the numbers are written, with this text between them."""


@dataclass(frozen=True)
class Reference:
    """A part of a turn that is replaced by the name of an object that the text refers to."""

    label: str


@dataclass(frozen=True)
class Listing:
    """A part of a turn that is replaced by regions with their labels, in the form that the published models answer."""

    regions: tuple[Region, ...]


Media = Image | Video
Part = Text | Image | Video | Coordinates | Reference | Listing


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool, which the model writes at the end of an answer, in the notation of its chat format."""

    name: str
    arguments: str
    """The arguments as JSON."""
    regions: tuple[tuple[str, Region], ...] = ()
    """The arguments that are boxes or points, by their names. They replace those of `arguments`, in the units of the
    model family."""


@dataclass(frozen=True)
class PublishedTool:
    """A published tool, which each generation has in a form of its own."""

    name: AgentTool


@dataclass(frozen=True)
class Turn:
    role: str
    """One of system, user, assistant and tool."""
    parts: tuple[Part, ...]
    train: bool
    """Whether the loss counts this turn. Only an assistant turn can be counted."""
    thoughts: str | None = None
    """The thoughts before an answer, if the raw row gives them apart from its text."""
    calls: tuple[ToolCall, ...] = ()
    """The tool calls after the text of an answer."""


@dataclass(frozen=True)
class Episode:
    """The episode of an agent that a sample is a step of."""

    id: str
    steps: int
    """The number of its steps that are samples."""


@dataclass(frozen=True)
class Sample:
    id: str
    source: str
    line: int
    """Number of the raw row in its file, counted from 1."""
    turns: tuple[Turn, ...]
    """The last turn is an answer, except in a conversation that the model is to answer."""
    tools: tuple[dict[str, Any] | PublishedTool, ...] = ()
    """JSON schemas of the functions that the assistant may call, or published tools."""
    rejected: tuple[Turn, ...] = ()
    """In a preference pair, the rejected turns. The chosen turns are `turns[shared:]`."""
    shared: int = 0
    """Number of turns at the beginning that both conversations of a preference pair share. 0 if the conversations are
    about different pictures."""
    accepted: tuple[str, ...] = ()
    """Further right answers to the last turn, for metrics that compare with several."""
    metrics: tuple[str, ...] = ()
    """The metrics by which the raw row wants its answers to be scored."""
    targets: tuple[Box, ...] = ()
    """The boxes of the element that the last turn acts on, for the metric of an agent's actions. They are in pixels of
    the original picture."""
    episode: Episode | None = None

    @property
    def where(self) -> str:
        """The name of this sample in error messages: source, line and id."""
        return sample_name(self.source, self.line, self.id)

    @property
    def schemas(self) -> tuple[dict[str, Any], ...]:
        """The tools that have their schema in the row."""
        return tuple(tool for tool in self.tools if not isinstance(tool, PublishedTool))

    @property
    def media(self) -> list[Media]:
        """All pictures and clips in order. Those in shared turns occur once."""
        return [part for turn in self.turns + self.rejected for part in turn.parts if isinstance(part, Image | Video)]

    @property
    def rejected_conversation(self) -> "Sample":
        """The whole rejected conversation of a preference pair."""
        return replace(self, turns=self.turns[: self.shared] + self.rejected, rejected=(), shared=0)

    @property
    def chosen_conversation(self) -> "Sample":
        """The whole chosen conversation of a preference pair."""
        return replace(self, rejected=(), shared=0)

    @property
    def question(self) -> "Sample":
        """The chosen conversation without its last answer."""
        turns = self.turns[:-1] if self.turns[-1].role == "assistant" else self.turns
        return replace(self, turns=turns, rejected=(), shared=0)

    def up_to_answer(self, number: int) -> "Sample":
        """Return the chosen conversation up to a trained turn, which is then the only trained one. Trained turns are
        counted from 1. What the raw row says of its last turn for scoring is left out before that turn."""
        trained = [place for place, turn in enumerate(self.turns) if turn.train]
        end = trained[number - 1]
        turns = (*(replace(turn, train=False) for turn in self.turns[:end]), self.turns[end])
        accepted, targets = (self.accepted, self.targets) if number == len(trained) else ((), ())
        return replace(self, turns=turns, rejected=(), shared=0, accepted=accepted, targets=targets)

    @property
    def images(self) -> list[Image]:
        return [part for part in self.media if isinstance(part, Image)]


def sample_name(source: str, line: int, id: str) -> str:
    """Return source, line and id on one line, with a long id cut to 80 characters."""
    words = " ".join(id.split())
    return f"{source}:{line} (id {words if len(words) <= 80 else f'{words[:79]}…'})"


def given_options(options: Limits | Sampling) -> dict[str, Any]:
    """Return the options that the raw row sets, by name."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in values.items() if value is not None}
