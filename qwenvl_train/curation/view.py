"""A row as the rules see it: its texts, and its pictures as far as a rule asks for them."""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from qwenvl_train.curation.pictures import PictureFacts, as_facts
from qwenvl_train.curation.text import Passage, words
from qwenvl_train.data.sample import Coordinates, Image, Listing, Part, Reference, Region, Sample, Text, Turn, Video
from qwenvl_train.families.thoughts import BEGIN, END, without_thoughts


@dataclass(frozen=True)
class AnswerView:
    """A trained answer of a row."""

    question: str
    """The text of the user's turn before it."""
    asked: str
    """The texts of all user's turns before it."""
    text: str
    """The text without thoughts. Boxes and points that the row gives apart from its text are not in it."""
    thoughts: str
    """The thoughts before the text, if there are any."""
    turn: Turn

    @cached_property
    def passage(self) -> Passage:
        """The text, with its words and sentences."""
        return Passage(self.text)

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """The thoughts and the text, as far as there are any."""
        return tuple(passage for passage in (Passage(self.thoughts), self.passage) if passage.text)

    @property
    def only_thoughts(self) -> bool:
        """Whether the thoughts begin, but do not end."""
        return not self.text and self.turn.thoughts is None and turn_text(self.turn).startswith(BEGIN)

    @property
    def ends_in_text(self) -> bool:
        """Whether text is the last that the answer has, rather than a box, a point or a tool call."""
        return not self.turn.calls and bool(self.turn.parts) and isinstance(self.turn.parts[-1], Text | Reference)


@dataclass(frozen=True)
class RowView:
    """What the rules judge: one sample. Of a preference pair, it is the chosen conversation."""

    sample: Sample

    @cached_property
    def answers(self) -> tuple[AnswerView, ...]:
        """The trained answers in order. There is at least one."""
        found, questions = [], [""]
        for turn, whole in zip(self.sample.turns, self.texts, strict=True):
            if turn.role == "user":
                questions.append(whole)
            elif turn.train:
                text = without_thoughts(whole)
                thoughts = turn.thoughts if turn.thoughts is not None else whole[: len(whole) - len(text)]
                thoughts = thoughts.strip().removeprefix(BEGIN).removesuffix(END).strip()
                asked = "\n".join(questions[1:])
                found.append(AnswerView(questions[-1], asked, text.strip(), thoughts, turn))
        return tuple(found)

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """The texts of the user's turns."""
        return tuple(text for turn, text in zip(self.sample.turns, self.texts, strict=True) if turn.role == "user")

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The texts of all turns."""
        return tuple(map(turn_text, self.sample.turns))

    @cached_property
    def text(self) -> str:
        """All texts of the conversation, one line or more for each turn."""
        return "\n".join(filter(None, self.texts))

    @property
    def words(self) -> tuple[str, ...]:
        """The words of all texts of the conversation."""
        return tuple(chain.from_iterable(map(words, self.texts)))

    @cached_property
    def pictures(self) -> tuple[PictureFacts, ...]:
        """The pictures in order, without clips."""
        return as_facts(self.sample.images, self.sample.where)

    @cached_property
    def clips(self) -> tuple[tuple[PictureFacts, ...], ...]:
        """The frames of each clip that is given as frames. Clips in one file are left out."""
        videos = [part for part in self.sample.media if isinstance(part, Video) and isinstance(part.content, tuple)]
        frames = [[Image(content) for content in video.contents] for video in videos]
        return tuple(as_facts(images, self.sample.where) for images in frames)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The boxes and points that the row gives apart from its text."""
        in_text = (region for turn in self.sample.turns for part in turn.parts for region in _regions(part))
        in_calls = (region for turn in self.sample.turns for call in turn.calls for _, region in call.regions)
        return (*in_text, *in_calls)


def turn_text(turn: Turn) -> str:
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
