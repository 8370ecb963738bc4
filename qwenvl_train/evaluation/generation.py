"""Generates answers to held-out samples, by greedy decoding."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.render.layout import IGNORED, Layout
from qwenvl_train.data.render.regions import in_words
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.render.written import regions_in
from qwenvl_train.data.sample import Coordinates, Image, Region, Sample, Turn, Video
from qwenvl_train.model.attention import set_attention
from qwenvl_train.model.autocast import keep_casts
from qwenvl_train.model.build import base_model
from qwenvl_train.model.pixels import Pixels

MAX_NEW_TOKENS = 256
"""Number of tokens at which an answer is cut. It is the same for every sample, because a limit that follows from the
expected answer would hide that a model goes on too long. A paragraph fits; a model that never ends its answers costs
this many passes for each sample."""


@dataclass(frozen=True)
class Answer:
    turn: int
    """Number of the answered turn among the trained turns of its conversation, counted from 1."""
    prompt: str
    """The text of the turn before the answer, as the model reads it, without its media."""
    expected: str
    generated: str
    rejected: str | None = None
    """The rejected answer of a preference pair. None for other samples."""
    expected_regions: tuple[Region, ...] = ()
    """The boxes and points in the expected answer, in pixels of the original picture. Empty unless the sample has a
    single picture, since the numbers in an answer do not name theirs."""
    generated_regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class AnswerGenerator:
    model: PreTrainedModel | PeftModel
    renderer: Renderer
    processor: Any
    synced: bool = False
    """Whether weights are sharded, so that every process must continue until the last one has finished."""

    @torch.no_grad()
    def __call__(self, sample: Sample) -> list[Answer]:
        """Return the generated answer for each trained turn of the sample, given the true turns before it."""
        rejected: list[str] = []
        if sample.rejected:
            lost = self.renderer.layout(sample.rejected_conversation)
            rejected = [self._words(lost.input_ids[start:end]) for _, start, end in _trained_turns(lost)]
        sample = sample.chosen_conversation
        rendered = self.renderer.render(sample)
        # A system turn that the sample does not have may come first.
        added = len(rendered.layout.turns) - len(sample.turns)
        answers = [
            self._answer(sample, rendered, number, (place - added, start, end))
            for number, (place, start, end) in enumerate(_trained_turns(rendered.layout), start=1)
        ]
        return [replace(one, rejected=lost) for one, lost in zip_longest(answers, rejected) if one is not None]

    def _answer(self, sample: Sample, rendered: Rendered, number: int, answered: tuple[int, int, int]) -> Answer:
        """Return the answer for a trained turn, which is given by its index in the sample and by its learned tokens."""
        place, start, end = answered
        expected = self._words(rendered.layout.input_ids[start:end])
        generated = self._words(self._generate(rendered, start))
        regions = partial(self._regions, rendered.layout, sample.turns[place])
        return Answer(
            turn=number,
            prompt=self._prompt(sample, rendered.layout, place - 1) if place else "",
            expected=expected,
            generated=generated,
            expected_regions=regions(expected),
            generated_regions=regions(generated),
        )

    def _words(self, ids: np.ndarray | torch.Tensor) -> str:
        """Return the text of an answer, without the token that ends it. Other control tokens stay, since an answer with
        boxes may consist of them."""
        words = self.processor.tokenizer.decode(ids)
        return words.removesuffix("<|endoftext|>").removesuffix("<|im_end|>")

    def _prompt(self, sample: Sample, layout: Layout, place: int) -> str:
        sizes = [(size.original, size.resized) for size in layout.pictures]
        return "".join(
            in_words(part, self.renderer.family, sizes, sample.where)
            for part in sample.turns[place].parts
            if not isinstance(part, Image | Video)
        )

    def _regions(self, layout: Layout, turn: Turn, text: str) -> tuple[Region, ...]:
        """Return the regions in an answer to `turn`, or none if the sample does not have a single picture."""
        if len(layout.pictures) != 1:
            return ()
        plain = any(isinstance(part, Coordinates) for part in turn.parts)
        return tuple(regions_in(text, layout.pictures[0], self.renderer.family, plain))

    def _generate(self, rendered: Rendered, start: int) -> torch.Tensor:
        """Return the tokens that the model generates after the first `start` tokens of a rendered sample."""
        base = base_model(self.model)
        ids = torch.from_numpy(rendered.layout.input_ids[:start])[None].to(base.device)
        kinds = {base.config.image_token_id: 1, base.config.video_token_id: 2}
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": sum(kind * (ids == token) for token, kind in kinds.items()),
            **media_inputs(rendered, self.renderer, self.processor, base.device, start),
        }
        # Published generation configs set a repetition penalty, with which decoding is not greedy.
        greedy = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
        # During generation the cache grows token by token, which packed attention does not support.
        packed = base.config._attn_implementation
        set_attention(base, "sdpa")
        try:
            with keep_casts(base):
                produced = self.model.generate(
                    **inputs, max_new_tokens=MAX_NEW_TOKENS, synced_gpus=self.synced, **greedy
                )
        finally:
            set_attention(base, packed)
        return produced[0, start:]


def media_inputs(
    rendered: Rendered, renderer: Renderer, processor: Any, device: torch.device, tokens: int | None = None
) -> dict[str, torch.Tensor]:
    """Return the pictures and clips of a sample as keyword arguments of `generate`. With `tokens`, return those in its
    first `tokens` tokens."""
    if rendered.planes is None or rendered.frame_pairs is None:
        return {}
    planes, frame_pairs = (torch.from_numpy(x).to(device) for x in (rendered.planes, rendered.frame_pairs))
    ids = rendered.layout.input_ids[:tokens]
    placeholders = int(((ids == renderer.image_pad) | (ids == renderer.video_pad)).sum())
    ends = np.cumsum([size.tokens for size in rendered.layout.media])
    sizes = rendered.layout.media[: int(np.searchsorted(ends, placeholders, side="right"))]
    pixels = Pixels(processor.image_processor)(planes, frame_pairs).split(
        [math.prod(size.grid) for size in rendered.layout.media]
    )
    inputs = {}
    for kind, name, grid in (
        (PictureSize, "pixel_values", "image_grid_thw"),
        (ClipSize, "pixel_values_videos", "video_grid_thw"),
    ):
        mine = [index for index, size in enumerate(sizes) if isinstance(size, kind)]
        if mine:
            inputs[name] = torch.cat([pixels[index] for index in mine])
            inputs[grid] = torch.tensor([sizes[index].grid for index in mine], device=device)
    clips = [size for size in sizes if isinstance(size, ClipSize)]
    if renderer.family.video_time == "seconds" and clips:
        seconds = [renderer.clips.frames_per_patch / clip.sampled_fps for clip in clips]
        inputs["second_per_grid_ts"] = torch.tensor(seconds, device=device)
    return inputs


def _trained_turns(layout: Layout) -> Iterator[tuple[int, int, int]]:
    """Yield the index of each trained turn, the position of its first learned token, and the end of its last one."""
    starts = [turn.token for turn in layout.turns]
    for place, (start, stop) in enumerate(pairwise([*starts, layout.length])):
        if len(learned := np.flatnonzero(layout.labels[start:stop] != IGNORED)):
            yield place, start + int(learned[0]), start + int(learned[-1]) + 1
