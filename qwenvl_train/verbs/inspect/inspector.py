"""The step from a row to the facts that inspect shows. Whatever the renderer decides is taken from it, and never
computed a second time."""

from collections.abc import Iterator
from itertools import groupby, pairwise

import numpy as np

from qwenvl_train.data.index.lengths import measure_sample
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.render.layout import IGNORED, Layout
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.sample import Content, Media, Sample, Video
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.streaming.head import Head
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.verbs.inspect.facts import Broken, Clip, Inspected, Medium, Picture, ShownTurn, TokenSpan
from qwenvl_train.verbs.inspect.marks import marks_of
from qwenvl_train.verbs.inspect.page import DrawnSample

_LONGEST_CHARACTER = 4
"""The most tokens that one character can take, at one byte for each token."""


class Inspector:
    def __init__(self, rows: Samples | Head, renderer: Renderer, tokenizer):
        self._rows, self._renderer, self._tokenizer = rows, renderer, tokenizer
        self._control = set(tokenizer.get_added_vocab().values())

    def inspect(self, index: int) -> tuple[Inspected, Rendered] | Broken:
        """Return the facts about any row, and its rendering unless the row is broken. The field `problem` holds the
        reason if no run can train on the row."""
        try:
            sample = self._rows[index]
            rendered = self._renderer.render(sample)
        except UserError as error:
            return Broken(self._rows.id(index), *self._rows.origin(index), message_of(error))
        return self._inspected(sample, rendered.layout, self._problem(sample)), rendered

    def draw(self, item: Inspected, rendered: Rendered) -> DrawnSample:
        return DrawnSample(list(self._texts(item)), self._frames(rendered))

    def _problem(self, sample: Sample) -> str | None:
        """Return the problem of a sample in the words of the check before a run, or None if there is none."""
        try:
            measure_sample(sample, self._renderer)
        except UserError as error:
            return message_of(error)
        return None

    def _inspected(self, sample: Sample, layout: Layout, problem: str | None) -> Inspected:
        side = self._renderer.pixels.patch * self._renderer.pixels.merge
        return Inspected(
            id=sample.id,
            source=sample.source,
            line=sample.line,
            problem=problem,
            input_ids=layout.input_ids,
            labels=layout.labels,
            position_ids=layout.position_ids,
            trained=layout.labels != IGNORED,
            turns=tuple(self._turns(layout)),
            media=tuple(_medium(*pair, side) for pair in zip(sample.media, layout.media, strict=True)),
            marks=tuple(marks_of(sample, layout.pictures, self._renderer.family)),
            shrink=layout.shrink,
        )

    def _turns(self, layout: Layout) -> Iterator[ShownTurn]:
        waiting = iter(_tokens_of_media(layout))
        starts = [turn.token for turn in layout.turns]
        for turn, (start, stop) in zip(layout.turns, pairwise([*starts, layout.length]), strict=True):
            yield ShownTurn(turn.role, tuple(self._runs(layout, start, stop, waiting)))

    def _runs(self, layout: Layout, start: int, stop: int, waiting: Iterator[int]) -> Iterator[TokenSpan]:
        """Yield the spans of tokens from `start` to `stop`. `waiting` yields the index of the picture or clip for each
        placeholder."""
        ids, trained = layout.input_ids.tolist(), (layout.labels != IGNORED).tolist()
        pads = (self._renderer.image_pad, self._renderer.video_pad)

        def kind(place: int) -> tuple[int | None, bool, bool]:
            medium = next(waiting) if ids[place] in pads else None
            return medium, ids[place] in self._control, trained[place]

        for (medium, control, counts), places in groupby(range(start, stop), kind):
            first, *rest = places
            last = rest[-1] + 1 if rest else first + 1
            text = "" if medium is not None else self._tokenizer.decode(ids[first:last])
            yield TokenSpan(first, last, counts, control, medium, text)

    def _texts(self, item: Inspected) -> Iterator[str]:
        for span in item.spans:
            if span.medium is not None:
                yield from [""] * (span.stop - span.start)
            else:
                yield from self._words(item.input_ids[span.start : span.stop].tolist())

    def _words(self, ids: list[int]) -> Iterator[str]:
        """Yield the text of each token. If several tokens form one character, the last of them yields the character,
        and the others yield empty text."""
        part: list[int] = []
        for place, token in enumerate(ids):
            part.append(token)
            text = self._tokenizer.decode(part)
            if text.endswith("\ufffd") and len(part) < _LONGEST_CHARACTER and place + 1 < len(ids):
                yield ""
            else:
                yield text
                part = []

    def _frames(self, rendered: Rendered) -> list[list[np.ndarray]]:
        settings = self._renderer.pixels
        frames: list[list[np.ndarray]] = []
        start = 0
        for size in rendered.layout.media:
            each = size.grid[1] * size.grid[2]
            many = 1 if isinstance(size, PictureSize) else len(size.frames)
            assert rendered.planes is not None
            planes = rendered.planes[start : start + many * each].reshape(many, each, -1)
            frames.append([unpatchify(frame, size.resized, settings.patch, settings.merge) for frame in planes])
            start += many * each
        return frames


def unpatchify(planes: np.ndarray, resized: tuple[int, int], patch: int, merge: int) -> np.ndarray:
    """Return the picture, of shape [H, W, C], that `patchify` cut into patches of shape [H/p * W/p, p*p*C]."""
    height, width = resized
    p, m = patch, merge
    blocks = planes.reshape(height // (p * m), width // (p * m), m, m, p, -1)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 1, 3, 5)).reshape(height, width, -1)


def _tokens_of_media(layout: Layout) -> Iterator[int]:
    for place, size in enumerate(layout.media):
        yield from [place] * size.tokens


def _medium(media: Media, size: PictureSize | ClipSize, side: int) -> Medium:
    if isinstance(size, PictureSize):
        assert not isinstance(media.content, tuple)
        return Picture(_path(media.content), size.original, size.resized, size.grid, side, size.tokens)
    assert isinstance(media, Video)
    content = media.content
    return Clip(
        path=[_path(frame) for frame in content] if isinstance(content, tuple) else _path(content),
        original=size.original,
        resized=size.resized,
        grid=size.grid,
        cell=side,
        tokens=size.tokens,
        seconds=tuple(frame / size.file_fps for frame in size.frames),
        fps=size.sampled_fps,
        timestamps=size.timestamps,
    )


def _path(content: Content) -> str | None:
    return content if isinstance(content, str) else None
