"""A row as the rules see it: its texts, and its pictures as far as a rule asks for them."""

from dataclasses import dataclass
from functools import cached_property

from qwenvl_train.data.sample import Coordinates, Listing, Part, Reference, Region, Sample, Text, Turn
from qwenvl_train.families.thoughts import BEGIN_THOUGHTS, without_thoughts


@dataclass(frozen=True)
class AnswerView:
    """A trained answer of a row."""

    question: str
    """The text of the user's turn before it."""
    text: str
    """The text without thoughts. Boxes and points that the row gives apart from its text are not in it."""
    thoughts: str
    """The thoughts before the text, if there are any."""
    turn: Turn


@dataclass(frozen=True)
class RowView:
    """What the rules judge: one sample. Of a preference pair, it is the chosen conversation."""

    sample: Sample

    @cached_property
    def answers(self) -> tuple[AnswerView, ...]:
        """The trained answers in order. There is at least one."""
        found, question = [], ""
        for turn in self.sample.turns:
            if turn.role == "user":
                question = text_of(turn)
            elif turn.train:
                whole = text_of(turn)
                text = without_thoughts(whole)
                thoughts = turn.thoughts if turn.thoughts is not None else whole[: len(whole) - len(text)]
                found.append(AnswerView(question, text.strip(), thoughts.removeprefix(BEGIN_THOUGHTS).strip(), turn))
        return tuple(found)

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """The texts of the user's turns."""
        return tuple(text_of(turn) for turn in self.sample.turns if turn.role == "user")

    @cached_property
    def text(self) -> str:
        """All texts of the conversation, one line or more for each turn."""
        return "\n".join(filter(None, map(text_of, self.sample.turns)))

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The boxes and points that the row gives apart from its text."""
        return tuple(region for turn in self.sample.turns for part in turn.parts for region in _regions(part))


def text_of(turn: Turn) -> str:
    """Return the text of a turn, without its pictures, clips, boxes and points."""
    return "".join(_words(part) for part in turn.parts).strip()


def _words(part: Part) -> str:
    match part:
        case Text():
            return part.text
        case Reference():
            return part.label
    return ""


def _regions(part: Part) -> tuple[Region, ...]:
    match part:
        case Coordinates():
            return (part.region,)
        case Listing():
            return part.regions
    return ()
