"""The one form that every accepted row is converted to; nothing after `formats` knows another."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Image:
    path: str


Part = Text | Image


@dataclass(frozen=True)
class Turn:
    role: str
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

    @property
    def where(self) -> str:
        """How an error names this row."""
        return f"{self.source}:{self.line} (id {self.id})"

    @property
    def images(self) -> list[Image]:
        return [part for turn in self.turns for part in turn.parts if isinstance(part, Image)]
