"""Choose the frames to take from a video file. qwen-vl-utils makes the choice, as the models were trained on it."""

import logging

import torch
from qwen_vl_utils import vision_process

from qwenvl_train.data.media.video_settings import ClipSettings
from qwenvl_train.data.sample import Sampling, given_options
from qwenvl_train.errors import UserError

_ROUNDED_SECONDS = 1.0
"""The seconds by which video_end may exceed the video. Annotations often end a clip at the next whole second; a later
end belongs to another video."""


def choose_frames(
    sampling: Sampling, settings: ClipSettings, total: int, rate: float, name: str
) -> tuple[tuple[int, ...], float]:
    """Return the numbers of the chosen frames and their rate. The video has `total` frames at `rate` per second.

    Options that the row does not set are those of the model.
    """
    options = {key: value for key, value in given_options(sampling).items() if key != "total_pixels"}
    if "nframes" not in options:
        of_model = {"fps": settings.fps, "min_frames": settings.min_frames, "max_frames": settings.max_frames}
        options = of_model | options
        _check_frame_limits(options, name)
    _check_range(sampling, total / rate, name)
    # qwen-vl-utils warns when fps is above the video's own. Every frame is taken then, as `sampled_fps` shows.
    logging.getLogger(vision_process.__name__).setLevel(logging.ERROR)
    try:
        first, last, count = vision_process.calculate_video_frame_range(options, total, rate)
    except ValueError:
        raise UserError(
            f"{name} has fewer than 2 frames between video_start and video_end; it has {rate:g} per second."
        ) from None
    try:
        frames = vision_process.smart_nframes(options, count, rate)
    except ValueError:
        raise UserError(
            f"{name} has {count} frames to choose from, but nframes is {options['nframes']}; "
            "give an even number from 2 up to the number of frames."
        ) from None
    indices = torch.linspace(first, last, frames).round().long().tolist()
    return tuple(indices), frames / count * rate


def _check_frame_limits(options: dict, name: str) -> None:
    pair = vision_process.FRAME_FACTOR
    fewest = vision_process.ceil_by_factor(options["min_frames"], pair)
    most = vision_process.floor_by_factor(options["max_frames"], pair)
    if max(fewest, pair) > most:
        raise UserError(
            f"{name} has no even number of frames from min_frames {options['min_frames']} "
            f"to max_frames {options['max_frames']}; limits that are not in the row are the model's."
        )


def _check_range(sampling: Sampling, seconds: float, name: str) -> None:
    start, end = sampling.video_start, sampling.video_end
    if start is not None and start >= seconds:
        raise UserError(f"{name} has video_start {start:g}, but is only {seconds:.1f} seconds long.")
    if end is not None and end > seconds + _ROUNDED_SECONDS:
        raise UserError(f"{name} has video_end {end:g}, but is only {seconds:.1f} seconds long.")
