"""Convert a video file, or a list of frames, to uint8 patches. Its frames and size are known before it is decoded.

A frame is one picture of a clip. The models process frames in pairs, since each patch spans two frames in time, so a
clip has an even number of frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from qwenvl_train.data.media.files import name_of
from qwenvl_train.data.media.pictures import PictureSize, PixelSettings, load_pixels, measure, patchify
from qwenvl_train.data.media.video_files import read_frames, video_facts
from qwenvl_train.data.media.video_limits import frame_size
from qwenvl_train.data.media.video_sampling import choose_frames
from qwenvl_train.data.media.video_settings import ClipSettings
from qwenvl_train.data.sample import Content, Image, Sampling, Video
from qwenvl_train.errors import UserError

_LIST_FPS = 2.0
"""The rate that qwen-vl-utils assumes for a list of frames. It is used when the model is not given the time."""


@dataclass(frozen=True)
class ClipSize:
    original: tuple[int, int]
    """The height and width of the clip, upright."""
    resized: tuple[int, int]
    """The height and width of the resized clip, upright."""
    grid: tuple[int, int, int]
    """The number of patches in time, height and width."""
    tokens: int
    """The number of placeholders in the text, after merging."""
    frames: tuple[int, ...]
    """The numbers of the frames taken from the file or list. The last frame of an odd list is repeated."""
    file_fps: float
    """The frames per second of the file. For a list, the rate at which its frames were taken."""
    sampled_fps: float
    """The frames per second of the frames in `frames`."""
    timestamps: tuple[float, ...]
    """The time in seconds of each step of the grid in time, midway between the first and last frame of the step."""


@dataclass(frozen=True)
class _ChosenFrames:
    original: tuple[int, int]
    frames: tuple[int, ...]
    file_fps: float
    sampled_fps: float


def measure_clip(video: Video, settings: ClipSettings, where: str) -> ClipSize:
    name = _named(video, where)
    if isinstance(video.content, tuple):
        taken = _take_list(video.content, video.sampling, settings, name, where)
    else:
        taken = _take_from_file(video.content, video.sampling, settings, name)
    resized = frame_size(video, taken.original, len(taken.frames), settings, name)
    together = settings.frames_per_patch
    grid = (len(taken.frames) // together, resized[0] // settings.patch, resized[1] // settings.patch)
    seconds = [frame / taken.file_fps for frame in taken.frames]
    return ClipSize(
        original=taken.original,
        resized=resized,
        grid=grid,
        tokens=grid[0] * grid[1] * grid[2] // settings.merge**2,
        frames=taken.frames,
        file_fps=taken.file_fps,
        sampled_fps=taken.sampled_fps,
        timestamps=tuple(
            (first + last) / 2
            for first, last in zip(seconds[::together], seconds[together - 1 :: together], strict=True)
        ),
    )


def load_clip(video: Video, size: ClipSize, settings: ClipSettings, where: str) -> np.ndarray:
    """Return [frames * patches of one frame, patch * patch * channels] uint8. Each frame is cut as a picture is."""
    numbers = list(dict.fromkeys(size.frames))
    frames = (patchify(pixels, settings.patch, settings.merge) for pixels in _load_frames(video, size, numbers, where))
    first = next(frames)
    planes = np.empty((len(size.frames), *first.shape), dtype=np.uint8)
    planes[0] = first
    for index, frame in enumerate(frames, start=1):
        planes[index] = frame
    planes[len(numbers) :] = planes[len(numbers) - 1]
    return planes.reshape(-1, first.shape[1])


def _take_from_file(content: Content, sampling: Sampling, settings: ClipSettings, name: str) -> _ChosenFrames:
    facts = video_facts(content, name)
    if facts.frames < settings.frames_per_patch:
        raise UserError(f"{name} has {facts.frames} frame, but a video needs 2 or more; give it as an image.")
    frames, sampled_fps = choose_frames(sampling, settings, facts.frames, facts.rate, name)
    return _ChosenFrames(facts.size, frames, facts.rate, sampled_fps)


def _take_list(
    contents: tuple[Content, ...], sampling: Sampling, settings: ClipSettings, name: str, where: str
) -> _ChosenFrames:
    if len(contents) < settings.frames_per_patch:
        raise UserError(f"{name} is too short, since a video needs 2 or more frames; give one frame as an image.")
    if sampling.fps is None and settings.timed:
        raise UserError(f"{name} needs fps, their frame rate, because this model gets the time of each frame.")
    unlimited = PixelSettings(settings.patch, settings.merge, min_pixels=1, max_pixels=2**62)
    sizes = [measure(Image(content), unlimited, where).original for content in contents]
    for number, size in enumerate(sizes):
        if size != sizes[0]:
            raise UserError(
                f"{name} mixes sizes: frame 0 is {sizes[0][1]}×{sizes[0][0]} pixels, frame {number} is "
                f"{size[1]}×{size[0]}. Resize them to one size."
            )
    last = len(contents) - 1
    fill = -len(contents) % settings.frames_per_patch
    rate = sampling.fps or _LIST_FPS
    return _ChosenFrames(sizes[0], (*range(len(contents)), *[last] * fill), rate, rate)


def _load_frames(video: Video, size: ClipSize, numbers: list[int], where: str) -> Iterator[np.ndarray]:
    """Yield each frame as [height, width, 3] uint8, upright and resized."""
    if isinstance(video.content, tuple):
        picture = PictureSize(size.original, size.resized, (1, *size.grid[1:]), size.tokens // size.grid[0])
        for number in numbers:
            yield load_pixels(Image(video.content[number]), picture, where)
        return
    name = _named(video, where)
    for number, frame in zip(numbers, read_frames(video.content, numbers, name), strict=True):
        if frame.shape[:2] != size.original:
            raise UserError(
                f"{name} changes its size: frame 0 is {size.original[1]}×{size.original[0]} pixels, frame {number} is "
                f"{frame.shape[1]}×{frame.shape[0]}. Convert it to one size."
            )
        # The colours of a pixel lie next to each other, as decoded. torch resizes this layout faster than plane by
        # plane.
        pixels = torch.from_numpy(frame).permute(2, 0, 1)
        resized = F.resize(pixels, list(size.resized), InterpolationMode.BICUBIC, antialias=True)
        yield resized.permute(1, 2, 0).numpy()


def _named(video: Video, where: str) -> str:
    if isinstance(video.content, tuple):
        return f"{where}: the video of {len(video.content)} frames"
    return name_of(video.content, "video", where)
