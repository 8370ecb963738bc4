"""Generates answers to held-out samples, by greedy decoding."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.sample import Sample, Text
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
    prompt: str
    expected: str
    generated: str
    rejected: str | None = None
    """The rejected answer of a preference pair. None for other samples."""


@dataclass(frozen=True)
class AnswerGenerator:
    model: PreTrainedModel | PeftModel
    renderer: Renderer
    processor: Any
    synced: bool = False
    """Whether weights are sharded, so that every process must continue until the last one has finished."""

    @torch.no_grad()
    def __call__(self, sample: Sample) -> Answer:
        """Return the generated answer for the sample's last trained turn."""
        lost = self.renderer.layout(sample.rejected_conversation) if sample.rejected else None
        sample = sample.chosen_conversation
        rendered = self.renderer.render(sample)
        ids = rendered.layout.input_ids
        start, end = _last_answer(rendered.layout.labels)
        words = partial(self.processor.tokenizer.decode, skip_special_tokens=True)
        answered = max(index for index, turn in enumerate(sample.turns) if turn.train)
        question = sample.turns[answered - 1]
        return Answer(
            prompt="".join(part.text for part in question.parts if isinstance(part, Text)),
            expected=words(ids[start:end]),
            generated=words(self._generate(rendered, start)),
            rejected=None if lost is None else words(lost.input_ids[slice(*_last_answer(lost.labels))]),
        )

    def _generate(self, rendered: Rendered, start: int) -> torch.Tensor:
        """Return the tokens that the model generates after the first `start` tokens of a rendered sample."""
        base = base_model(self.model)
        ids = torch.from_numpy(rendered.layout.input_ids[:start])[None].to(base.device)
        kinds = {base.config.image_token_id: 1, base.config.video_token_id: 2}
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": sum(kind * (ids == token) for token, kind in kinds.items()),
            **media_inputs(rendered, self.renderer, self.processor, base.device),
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
    rendered: Rendered, renderer: Renderer, processor: Any, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return the pictures and clips of a sample as keyword arguments of `generate`."""
    if rendered.planes is None or rendered.frame_pairs is None:
        return {}
    planes, frame_pairs = (torch.from_numpy(x).to(device) for x in (rendered.planes, rendered.frame_pairs))
    sizes = rendered.layout.media
    pixels = Pixels(processor.image_processor)(planes, frame_pairs).split([math.prod(size.grid) for size in sizes])
    inputs = {}
    for kind, name, grid in (
        (PictureSize, "pixel_values", "image_grid_thw"),
        (ClipSize, "pixel_values_videos", "video_grid_thw"),
    ):
        mine = [index for index, size in enumerate(sizes) if isinstance(size, kind)]
        if mine:
            inputs[name] = torch.cat([pixels[index] for index in mine])
            inputs[grid] = torch.tensor([sizes[index].grid for index in mine], device=device)
    if renderer.family.video_time == "seconds" and rendered.layout.clips:
        seconds = [renderer.clips.frames_per_patch / clip.sampled_fps for clip in rendered.layout.clips]
        inputs["second_per_grid_ts"] = torch.tensor(seconds, device=device)
    return inputs


def _last_answer(labels: np.ndarray) -> tuple[int, int]:
    end = len(labels) - int((labels[::-1] != IGNORED).argmax())
    return end - int((labels[:end][::-1] == IGNORED).argmax()), end
