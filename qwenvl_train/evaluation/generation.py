"""Generates answers to held-out samples, for the report."""

import math
from dataclasses import dataclass
from functools import partial

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
from qwenvl_train.model.build import base_model
from qwenvl_train.model.pixels import Pixels


def seen_by(rendered: Rendered, renderer: Renderer, processor, device: torch.device) -> dict[str, torch.Tensor]:
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


@dataclass(frozen=True)
class Answer:
    prompt: str
    expected: str
    generated: str
    rejected: str | None = None
    """The rejected answer of a preference pair. None for other samples."""


@torch.no_grad()
def answer(model: PreTrainedModel | PeftModel, sample: Sample, renderer: Renderer, processor, synced: bool) -> Answer:
    """Return the generated answer for the sample's last trained turn, with greedy decoding. `synced` means that weights
    are sharded, so that every process must continue until the last one has finished."""
    below = base_model(model)
    lost = renderer.layout(sample.rejected_conversation) if sample.rejected else None
    sample = sample.chosen_conversation
    rendered = renderer.render(sample)
    ids, labels = rendered.layout.input_ids, rendered.layout.labels
    start, end = _last_answer(labels)
    device = below.device
    inputs = {"input_ids": torch.from_numpy(ids[:start])[None].to(device)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    kinds = {below.config.image_token_id: 1, below.config.video_token_id: 2}
    inputs["mm_token_type_ids"] = sum(kind * (inputs["input_ids"] == token) for token, kind in kinds.items())
    inputs |= seen_by(rendered, renderer, processor, device)
    # During generation the cache grows token by token, which packed attention does not support.
    packed = below.config._attn_implementation
    set_attention(below, "sdpa")
    try:
        budget = min(256, end - start + 32)
        # Published generation configs set a repetition penalty, with which decoding is not greedy.
        greedy = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
        produced = model.generate(**inputs, max_new_tokens=budget, synced_gpus=synced, **greedy)
    finally:
        set_attention(below, packed)
    words = partial(processor.tokenizer.decode, skip_special_tokens=True)
    answered = max(index for index, turn in enumerate(sample.turns) if turn.train)
    asked = sample.turns[answered - 1]
    return Answer(
        prompt="".join(part.text for part in asked.parts if isinstance(part, Text)),
        expected=words(ids[start:end]),
        generated=words(produced[0, start:]),
        rejected=None if lost is None else words(lost.input_ids[slice(*_last_answer(lost.labels))]),
    )


def _last_answer(labels: np.ndarray) -> tuple[int, int]:
    end = len(labels) - int((labels[::-1] != IGNORED).argmax())
    return end - int((labels[:end][::-1] == IGNORED).argmax()), end
