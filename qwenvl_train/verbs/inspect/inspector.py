"""From a row to the facts that are told of it: nothing is computed anew that the renderer has decided."""

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
from qwenvl_train.verbs.inspect.facts import Broken, Clip, Inspected, Medium, Picture, Run, ShownTurn
from qwenvl_train.verbs.inspect.marks import marks_of
from qwenvl_train.verbs.inspect.page import DrawnSample

_LONGEST_CHARACTER = 4
"""Tokens, at a byte each."""


class Inspector:
    def __init__(self, rows: Samples | Head, renderer: Renderer, tokenizer):
        self._rows, self._renderer, self._tokenizer = rows, renderer, tokenizer
        self._control = set(tokenizer.get_added_vocab().values())

    def look(self, index: int) -> tuple[Inspected, Rendered] | Broken:
        """Any row; what keeps it from training is told in `problem`."""
        id = None
        try:
            sample = self._rows[index]
            id = sample.id
            rendered = self._renderer.render(sample)
        except UserError as error:
            return Broken(id, *self._rows.place(index), message_of(error))
        return self._inspected(sample, rendered.layout, self._problem(sample)), rendered

    def draw(self, item: Inspected, rendered: Rendered) -> DrawnSample:
        return DrawnSample(list(self._texts(item)), self._frames(rendered))

    def _problem(self, sample: Sample) -> str | None:
        """As the check before a run tells it."""
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

    def _runs(self, layout: Layout, start: int, stop: int, waiting: Iterator[int]) -> Iterator[Run]:
        """`waiting` tells of each placeholder which of the media it stands for."""
        ids, trained = layout.input_ids.tolist(), (layout.labels != IGNORED).tolist()
        pads = (self._renderer.image_pad, self._renderer.video_pad)

        def kind(place: int) -> tuple[int | None, bool, bool]:
            medium = next(waiting) if ids[place] in pads else None
            return medium, ids[place] in self._control, trained[place]

        for (medium, control, counts), places in groupby(range(start, stop), kind):
            first, *rest = places
            last = rest[-1] + 1 if rest else first + 1
            text = "" if medium is not None else self._tokenizer.decode(ids[first:last])
            yield Run(first, last, counts, control, medium, text)

    def _texts(self, item: Inspected) -> Iterator[str]:
        for run in item.runs:
            if run.medium is not None:
                yield from [""] * (run.stop - run.start)
            else:
                yield from self._words(item.input_ids[run.start : run.stop].tolist())

    def _words(self, ids: list[int]) -> Iterator[str]:
        """A character of several tokens is told with the last of them."""
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
    """The picture, [H, W, C], that `patchify` cut into [H/p * W/p, p*p*C]."""
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
