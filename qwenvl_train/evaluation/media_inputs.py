"""The media of a sample as the keyword arguments of transformers' `generate`."""

import math
from typing import Any

import numpy as np
import torch

from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.model.pixels import Pixels


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
