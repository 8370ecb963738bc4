"""Renders a Sample to token ids, labels and positions, turn by turn, as the published template writes them.

Labels are set during construction: the tokens of a trained answer and its end-of-turn token are learned. The code
never searches for token ids, so words in a user's text can neither start a learned span nor become a placeholder token.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from qwenvl_train.batch import Piece
from qwenvl_train.config.schema import DataConfig, VideoConfig
from qwenvl_train.data.media.feature_cache import FeatureCache
from qwenvl_train.data.media.files import name_of
from qwenvl_train.data.media.picture_cache import PictureCache
from qwenvl_train.data.media.pictures import PictureSize, PixelSettings, load_patches, measure
from qwenvl_train.data.media.videos import ClipSettings, ClipSize, load_clip, measure_clip
from qwenvl_train.data.render.conversation import ConversationWriter
from qwenvl_train.data.render.downscale import largest_share, shrunk
from qwenvl_train.data.render.layout import IGNORED, Layout, TurnStart, preference_pair
from qwenvl_train.data.render.positions import Span, mrope_positions
from qwenvl_train.data.render.regions import in_words, with_written_tools
from qwenvl_train.data.render.thoughts import (
    keeps_all,
    refuse_other_question,
    thinking_in_words,
)
from qwenvl_train.data.render.tokens import TextEncoder
from qwenvl_train.data.render.vision_index import VisionIndex
from qwenvl_train.data.sample import Coordinates, Image, Listing, Media, Part, PublishedTool, Sample, Video
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.families.thoughts import BEGIN_THOUGHTS

_Sizes = list[PictureSize | ClipSize]


@dataclass(frozen=True)
class Rendered:
    """A sample's layout together with its decoded media or their stored features."""

    layout: Layout
    planes: np.ndarray | None
    """[planes, p*p*C] uint8: planes of all media, one medium after the other. A picture has one plane for each patch,
    a clip has one for each patch of each frame. None without media or with stored features."""
    frame_pairs: np.ndarray | None
    """[patches, 2] int32: the planes of each patch in its two frames. A picture's plane serves as both. None without
    media or with stored features."""
    features: torch.Tensor | None = None
    """[levels, patches, width]: stored outputs of a frozen vision tower, which replace `planes` and `frame_pairs`."""
    reference: np.ndarray | None = None
    """[learned tokens]: log-probabilities of the reference model, if they were computed before the run."""
    entry: int | None = None
    """Index of the entry of data.train that the sample belongs to, if there are several."""


class Renderer:
    def __init__(
        self, processor, family: Family, video: VideoConfig, data: DataConfig, pictures: Path | None = None,
        preferences: bool | None = False,
    ):  # fmt: skip
        """Set up the renderer for a processor whose chat template is the family's, as `as_template` finds out.

        `pictures` is the folder for resized pictures. With `preferences`, each sample is a preference pair and has a
        rejected answer, too; with None, samples may be either.
        """
        self.family, self.preferences = family, preferences
        self.pixels = PixelSettings.of(processor.image_processor)
        self.clips = ClipSettings.of(processor.video_processor, family, video)
        self.vision_index = VisionIndex(self.pixels.merge, self.pixels.patch, family.window_size, family.position_side)
        self.max_length, self._downscale = data.max_length, data.too_long == "downscale"
        self._vision_ids, self._thinking = data.vision_ids, data.thinking
        self._writer = ConversationWriter(family, data.thinking)
        self._cache = PictureCache(pictures) if pictures and data.cache_pictures else None
        self.features: FeatureCache | None = None
        """Cache of vision tower outputs that are read instead of decoding media. None to decode."""
        self._text_encoder = TextEncoder(processor.tokenizer)
        ids = processor.tokenizer.convert_tokens_to_ids
        self._turn_start, self._turn_end = ids("<|im_start|>"), ids("<|im_end|>")
        self._vision_start, self._vision_end = ids("<|vision_start|>"), ids("<|vision_end|>")
        self.image_pad, self.video_pad = ids("<|image_pad|>"), ids("<|video_pad|>")

    @property
    def begins_thoughts(self) -> bool:
        """Whether the model answers a question after the beginning of its thoughts."""
        return self._writer.opening()[-1] == BEGIN_THOUGHTS

    def thinking_in_words(self) -> list[str]:
        """Return a line that says how thoughts are written, or no line if answers have none."""
        return thinking_in_words(self.family.chat, self._thinking)

    def with_features(self, features: FeatureCache) -> "Renderer":
        """Return a copy of this renderer that reads stored features instead of decoding media."""
        changed = copy(self)
        changed.features = features
        return changed

    def fingerprint(self) -> str:
        """Return a string of all settings that a sample's lengths depend on."""
        limit = self.max_length if self._downscale else None
        facts = (self.family, self.pixels, self.clips, limit, self._vision_ids, self._thinking, self.preferences)
        return f"{facts} {self._text_encoder.fingerprint()}"

    def blank(self) -> Rendered:
        """Return a sample without learned tokens, used if every sample of a packed row turned out broken."""
        ids = np.array([self._turn_end, self._turn_end])
        positions = mrope_positions(len(ids), (), self.pixels.merge)
        labels, pieces = np.full_like(ids, IGNORED), (Piece(len(ids)),)
        return Rendered(Layout(ids, labels, positions, (), (), shrink=1, pieces=pieces), None, None)

    def blank_planes(self) -> np.ndarray:
        """Return the planes of a blank picture with the fewest patches that can be merged."""
        return np.zeros((self.pixels.merge**2, 3 * self.pixels.patch**2), dtype=np.uint8)

    def layout(self, sample: Sample, sizes: Sequence[PictureSize | ClipSize] | None = None) -> Layout:
        """Return tokens, labels and positions, from text and the headers of media alone.

        The layout may be longer than max_length. If the sample ends with a question, the layout is a prompt: it ends
        where the model's answer begins. With `sizes`, the media have these sizes, whatever the settings say.
        """
        # Cached, because most text stays the same when a sample is laid out again with smaller media.
        encode = cache(self._text_encoder.encode)
        if sizes is not None:
            return self._laid_out(sample, list(sizes), encode)
        measured = [self.measured(media, sample.where) for media in sample.media]
        whole = self._laid_out(sample, measured, encode)
        if not self._downscale or self.max_length is None or whole.length <= self.max_length or not measured:
            return whole
        words = whole.length - _tokens(measured)
        fixed = not self._tells_sizes(sample)

        def length(share: float) -> int:
            smaller = self._shrunk(measured, share)
            return words + _tokens(smaller) if fixed else self._laid_out(sample, smaller, encode).length

        share = largest_share(length, self.max_length)
        return self._laid_out(sample, self._shrunk(measured, share), encode, share)

    def render(self, sample: Sample, layout: Layout | None = None) -> Rendered:
        """Return a sample with its media. `layout` is its layout, if it is known already."""
        layout = self.layout(sample) if layout is None else layout
        measured = list(zip(sample.media, layout.media, strict=True))
        if not measured:
            return Rendered(layout, None, None)
        if self.features is not None:
            stored = [self._read(self.features, media, size, sample.where) for media, size in measured]
            return Rendered(layout, None, None, stored[0] if len(stored) == 1 else torch.cat(stored, dim=1))
        planes: list[np.ndarray] = []
        frame_pairs: list[np.ndarray] = []
        start = 0
        for media, size in measured:
            planes.append(self.planes(media, size, sample.where))
            frame_pairs.append(frame_pairs_of(size, start))
            start += len(planes[-1])
        # A single picture is not copied.
        return Rendered(layout, planes[0] if len(planes) == 1 else np.concatenate(planes), np.concatenate(frame_pairs))

    def planes(self, media: Media, size: PictureSize | ClipSize, where: str) -> np.ndarray:
        """Return the decoded planes: one for each patch of a picture, one for each patch of each frame of a clip."""
        if isinstance(media, Image):
            assert isinstance(size, PictureSize)
            return load_patches(media, size, self.pixels, where, self._cache)
        assert isinstance(size, ClipSize)
        return load_clip(media, size, self.clips, where)

    def _read(self, features: FeatureCache, media: Media, size: PictureSize | ClipSize, where: str) -> torch.Tensor:
        try:
            stored = features.read(features.file_of(media, size))
        except OSError:
            stored = None
        if stored is None:
            self.planes(media, size, where)  # raises a UserError of its own if the medium is broken
            kind = "image" if isinstance(media, Image) else "video"
            name = f"{where}: a video" if isinstance(media.content, tuple) else name_of(media.content, kind, where)
            raise UserError(
                f"{name} has no features in {features.folder}, although they were computed before training: it has "
                "changed, or data.cache has. Start the run again; if this happens again, delete that folder."
            )
        return stored

    def _laid_out(
        self, sample: Sample, sizes: _Sizes, encode: Callable[[str], list[int]], shrink: float = 1.0
    ) -> Layout:
        thinking, thinks = self.family.chat.thinking, self._writer.asks_to_think(sample)
        if not sample.rejected:
            return self._conversation(sample, sizes, thinks, encode, shrink)
        if thinking is not None and not keeps_all(thinking, self._thinking):
            refuse_other_question(sample, self.family.chat)
        chosen = len(sample.chosen_conversation.media)
        shared = sum(isinstance(part, Image | Video) for turn in sample.turns[: sample.shared] for part in turn.parts)
        of_rejected = sizes[:shared] + sizes[chosen:]
        return preference_pair(
            self._conversation(sample.chosen_conversation, sizes[:chosen], thinks, encode, shrink),
            self._conversation(sample.rejected_conversation, of_rejected, thinks, encode, shrink),
            sample.shared > 0,
            shared,
        )

    def _conversation(
        self, sample: Sample, sizes: _Sizes, thinks: bool, encode: Callable[[str], list[int]], shrink: float
    ) -> Layout:
        of_pictures = [(size.original, size.resized) for size in sizes if isinstance(size, PictureSize)]
        sample = with_written_tools(sample, self.family, of_pictures)
        waiting = iter(sizes)
        tokens = _TokenBuilder(encode)
        spans: list[Span] = []
        turns: list[TurnStart] = []
        numbers = {Image: 0, Video: 0}

        def put_media(part: Image | Video) -> None:
            size = next(waiting)
            numbers[type(part)] += 1
            if self._vision_ids:
                tokens.text(f"{'Picture' if isinstance(part, Image) else 'Video'} {numbers[type(part)]}: ")
            pad = self.image_pad if isinstance(part, Image) else self.video_pad
            for words, grid, step in self._pieces(size):
                tokens.text(words)
                tokens.close()
                tokens.put([self._vision_start])
                spans.append(Span(len(tokens.ids), grid, step))
                tokens.put([pad] * spans[-1].tokens(self.pixels.merge))
                tokens.put([self._vision_end])

        def text_of(part: Part) -> str:
            assert not isinstance(part, Image | Video)
            return in_words(part, self.family, of_pictures, sample.where)

        def put_given(given: tuple[str, ...]) -> None:
            for words in given:
                tokens.text(words)
                tokens.close()

        for turn in self._writer.turns(sample, thinks, text_of):
            turns.append(TurnStart(turn.role, len(tokens.ids)))
            if turn.opens:
                tokens.put([self._turn_start])
            put_given(turn.given)
            for part in turn.parts:
                if isinstance(part, str):
                    tokens.text(part)
                else:
                    put_media(part)
            if turn.closes:
                tokens.close(turn.train)
                tokens.put([self._turn_end], turn.train)
                tokens.text("\n")
                tokens.close()
        if sample.turns[-1].role != "assistant":
            tokens.put([self._turn_start])
            put_given(self._writer.opening())
        return Layout(
            input_ids=np.array(tokens.ids),
            labels=np.array(tokens.labels),
            position_ids=mrope_positions(len(tokens.ids), spans, self.pixels.merge),
            media=tuple(sizes),
            turns=tuple(turns),
            shrink=shrink,
            pieces=(Piece(len(tokens.ids)),),
        )

    def measured(self, media: Media, where: str) -> PictureSize | ClipSize:
        """Return the size of a picture or clip, from its header alone."""
        if isinstance(media, Image):
            return measure(media, self.pixels, where)
        return measure_clip(media, self.clips, where)

    def _shrunk(self, sizes: _Sizes, share: float) -> _Sizes:
        return [shrunk(size, share, self.pixels.merge) for size in sizes]

    def _tells_sizes(self, sample: Sample) -> bool:
        """Return whether the sample's text depends on picture sizes: it has regions in pixels of resized pictures."""
        turns = sample.turns + sample.rejected
        return self.family.coordinates == "resized" and (
            any(isinstance(tool, PublishedTool) for tool in sample.tools)
            or any(call.regions for turn in turns for call in turn.calls)
            or any(isinstance(part, Coordinates | Listing) for turn in turns for part in turn.parts)
        )

    def _pieces(self, size: PictureSize | ClipSize) -> Iterator[tuple[str, tuple[int, int, int], float]]:
        """Yield for each run of placeholder tokens the text before it, its grid, and the distance in time between the
        layers of the grid, in positions."""
        if isinstance(size, PictureSize):
            yield "", size.grid, 1
            return
        match self.family.video_time:
            case "pairs":
                yield "", size.grid, 1
            case "seconds":
                yield "", size.grid, self.family.tokens_per_second * self.clips.frames_per_patch / size.sampled_fps
            case "timestamps":
                for seconds in size.timestamps:
                    yield f"<{seconds:.1f} seconds>", (1, *size.grid[1:]), 1


class _TokenBuilder:
    """Tokens and labels of a sample under construction. Text between two control tokens is encoded in one call."""

    def __init__(self, encode: Callable[[str], list[int]]):
        self.ids: list[int] = []
        self.labels: list[int] = []
        self._encode = encode
        self._text = ""

    def text(self, words: str) -> None:
        self._text += words

    def close(self, supervised: bool = False) -> None:
        """Encode the text since the last token and append its tokens, as learned tokens if `supervised` is true."""
        text, self._text = self._text, ""
        self.put(self._encode(text), supervised)

    def put(self, tokens: list[int], supervised: bool = False) -> None:
        assert not self._text
        self.ids.extend(tokens)
        self.labels.extend(tokens if supervised else [IGNORED] * len(tokens))


def frame_pairs_of(size: PictureSize | ClipSize, start: int) -> np.ndarray:
    """Return [patches, 2] int32: the planes of each patch in its two frames. `start` is the medium's first plane."""
    layers, *sides = size.grid
    frame = int(np.prod(sides))
    if isinstance(size, PictureSize):
        return np.arange(start, start + frame, dtype=np.int32)[:, None].repeat(2, axis=1)
    planes = np.arange(start, start + 2 * layers * frame, dtype=np.int32).reshape(layers, 2, frame)
    return planes.transpose(0, 2, 1).reshape(-1, 2)


def _tokens(sizes: _Sizes) -> int:
    return sum(size.tokens for size in sizes)
