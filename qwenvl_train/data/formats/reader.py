"""Convert the text of a raw row to parts: replace each mark by what it stands for, and check that none is left over."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from qwenvl_train.data.formats.columns import Column
from qwenvl_train.data.formats.keys import MEDIA, misspelt, present, refuse_unknown
from qwenvl_train.data.formats.objects import MARK, Objects, listing, picture
from qwenvl_train.data.formats.parts import CONTENT, image, kind_of, opened, video
from qwenvl_train.data.formats.turns import RawTurn
from qwenvl_train.data.media.locate import Locator, shown
from qwenvl_train.data.sample import Coordinates, Image, Listing, Media, Part, Text, Turn, Video
from qwenvl_train.errors import UserError

# A line break next to a mark is removed with the mark, because the published template has none there.
MEDIA_MARK = re.compile(r"(?:\r?\n)?<(image|video)>(?:\r?\n)?")
_KINDS = ("image", "video")


class Reader:
    """Reads the turns of one raw row, in their order."""

    def __init__(self, row: dict, where: str, locator: Locator):
        self._row, self._where, self._locator = row, where, locator
        self._columns = {kind: Column(row, kind, where) for kind in _KINDS}
        self._conversation = row.get("conversations") is not None
        self._objects = Objects(row["objects"] or {}, where) if "objects" in row else None
        self._unplaced = where if self._objects and self._objects.boxes and not self._objects.images else ""
        """The place, for error messages, of regions that do not say in which picture they lie, or an empty string."""

    @cached_property
    def _marked(self) -> bool:
        """Whether the mark <image> or <video> stands for a medium. In a row without `conversations` and without any
        media column, it is plain text."""
        return self._conversation or any(key in self._row for key in MEDIA) or bool(misspelt(self._row, MEDIA))

    def turn(self, raw_turn: RawTurn) -> Turn:
        if isinstance(raw_turn.content, str):
            parts = list(self._words(raw_turn.content, raw_turn))
        else:
            parts = [part for entry in raw_turn.content for part in self._part(entry, raw_turn)]
        if raw_turn.calls and raw_turn.content and not parts:
            # Some templates write a line break between an empty typed part and the calls.
            parts.append(Text(""))
        if raw_turn.role == "assistant" and any(isinstance(part, Image | Video) for part in parts):
            raise UserError(f"{raw_turn.place}: an answer contains an image or video, but the model writes only text.")
        train = raw_turn.role == "assistant" and raw_turn.train is not False
        return Turn(raw_turn.role, tuple(parts), train, raw_turn.thoughts, raw_turn.calls)

    def settle(self, turns: list[Turn], rejected: list[Turn]) -> list[Turn]:
        """Return the final turns. Call this when all turns are read; raise UserError when any medium or region is left
        over or missing."""
        if any(isinstance(part, Image | Video) for turn in rejected for part in turn.parts):
            raise UserError(f"{self._where}: the rejected turns contain an image or video; only shared turns may.")
        columns = self._columns.values()
        own = any(isinstance(part, Image | Video) for turn in turns for part in turn.parts)
        if not (self._conversation or own or any(column.marks or column.mark_in_text for column in columns)):
            turns = self._in_front(turns)
        for column in columns:
            if not column.settled:
                raise UserError(self._mismatch(column))
        if self._objects:
            self._objects.check()
        self._check_regions(
            [part for turn in turns for part in turn.parts], [p for turn in rejected for p in turn.parts]
        )
        return turns

    def _words(self, text: str, raw_turn: RawTurn) -> Iterator[Part]:
        # In an answer, <image> and <video> are always plain text.
        marked = raw_turn.role != "assistant" and MEDIA_MARK.search(text) and self._marked
        # Pieces with odd numbers are the kinds of the marks; the other pieces are the text between the marks.
        for index, piece in enumerate(MEDIA_MARK.split(text) if marked else [text]):
            if index % 2:
                yield from self._from_column(piece, None, {}, raw_turn.place)
            else:
                yield from self._grounded(piece)

    def _grounded(self, text: str) -> Iterator[Part]:
        for index, piece in enumerate([text] if self._objects is None else MARK.split(text)):
            if index % 2 and self._objects:
                yield from self._objects.part(piece)
            elif piece:
                yield Text(piece)

    def _part(self, entry: object, raw_turn: RawTurn) -> Iterator[Part]:
        if not isinstance(entry, dict):
            raise UserError(f"{raw_turn.place} has the part {shown(entry)}; a part must be an object with a 'type'.")
        part = present(entry)
        match kind_of(part, raw_turn.place):
            case "text":
                yield from self._typed_text(part, raw_turn)
            case "objects":
                refuse_unknown(part, ("type", "objects", "image"), raw_turn.place)
                if "image" not in part:
                    self._unplaced = raw_turn.place
                yield listing(part.get("objects"), picture(part.get("image", 0), raw_turn.place), raw_turn.place)
            case kind:
                content, options = opened(kind, part, raw_turn.place)
                if content is None:
                    index = options.pop("index", None)
                    index = None if index is None else picture(index, raw_turn.place)
                    yield from self._from_column(kind, index, options, raw_turn.place)
                else:
                    yield self._medium(kind, content, options, raw_turn.place)

    def _typed_text(self, part: dict, raw_turn: RawTurn) -> Iterator[Part]:
        refuse_unknown(part, ("type", "text"), f"{raw_turn.place}: the text")
        text = part.get("text")
        if not isinstance(text, str):
            raise UserError(f"{raw_turn.place} has a text part whose text is {shown(text)}.")
        if raw_turn.role != "assistant":
            for column in self._columns.values():
                column.mark_in_text |= f"<{column.kind}>" in text
        yield from self._grounded(text)

    def _from_column(self, kind: str, index: int | None, options: dict, place: str) -> Iterator[Media]:
        entry = self._columns[kind].take(index)
        if isinstance(entry, dict) and not entry.keys() <= {"bytes", "path"}:
            content, own = opened(kind, present(entry), place)
            if content is None:
                raise UserError(f"{place}: {shown(entry)} has no file under {', '.join(CONTENT[kind])}.")
            yield self._medium(kind, content, {**own, **options}, place)
        elif entry is not None:
            yield self._medium(kind, entry, options, place)

    def _medium(self, kind: str, content: object, options: dict, place: str) -> Media:
        return (image if kind == "image" else video)(content, options, self._locator, place)

    def _in_front(self, turns: list[Turn]) -> list[Turn]:
        """Return the turns with all pictures and clips before the first question. This applies to rows without any
        mark."""
        first = next(index for index, turn in enumerate(turns) if turn.role == "user")
        media = [
            medium
            for kind, column in self._columns.items()
            for _ in column.entries
            for medium in self._from_column(kind, None, {}, self._where)
        ]
        question = replace(turns[first], parts=(*media, *turns[first].parts))
        return [*turns[:first], question, *turns[first + 1 :]]

    def _mismatch(self, column: Column) -> str:
        kind, listed = column.kind, len(column.entries)
        text = f"{self._where} has {column.marks} <{kind}> in its questions but {listed} {kind}s in its columns; "
        text += f"write one <{kind}> for each, where it belongs."
        if column.mark_in_text:
            text += f' In a typed part <{kind}> is plain text; write {{"type": "{kind}"}} there.'
        if not listed:
            text += misspelt(self._row, MEDIA)
        elif kind == "video" and column.marks == 1:
            text += " A video given as frames is a list of frames inside the list of videos."
        return text

    def _check_regions(self, parts: list[Part], rejected: list[Part]) -> None:
        pictures = sum(isinstance(part, Image) for part in parts)
        regions = [
            region
            for part in parts + rejected
            for region in (
                part.regions if isinstance(part, Listing) else (part.region,) if isinstance(part, Coordinates) else ()
            )
        ]
        if self._unplaced and pictures != 1:
            raise UserError(
                f"{self._unplaced} has regions and {pictures} images; "
                "set image_id (in a typed part: image) to the index of the image of each, counted from 0."
            )
        for region in regions:
            if region.image >= pictures:
                raise UserError(
                    f"{self._where} has a region in image {region.image}, counted from 0, but {pictures} images."
                )
