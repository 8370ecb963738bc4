"""Choose the size to which all frames of a clip are resized."""

from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize as resize_one_frame
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as resize_whole_clip

from qwenvl_train.data.media.pictures import refuse_huge, requested_size
from qwenvl_train.data.media.video_settings import ClipSettings
from qwenvl_train.data.sample import Video
from qwenvl_train.errors import UserError

_NO_LIMIT = 2**62
_LARGEST_CLIP = 2**32
"""The pixels of 12 GiB, which make a million tokens or more."""


def frame_size(
    video: Video, original: tuple[int, int], frames: int, settings: ClipSettings, name: str
) -> tuple[int, int]:
    """Return the height and width of the resized frames. Limits in the row take precedence over those of the model."""
    requested = requested_size(video.limits, settings.patch * settings.merge)
    size = _within_limits(video, original, frames, settings, name) if requested is None else requested
    refuse_huge(*size, name)
    if frames * size[0] * size[1] > _LARGEST_CLIP:
        raise UserError(
            f"{name} would be {frames} frames of {size[1]}×{size[0]} pixels, together more than {_LARGEST_CLIP}; lower "
            "nframes, fps or the sizes."
        )
    return size


def _within_limits(
    video: Video, original: tuple[int, int], frames: int, settings: ClipSettings, name: str
) -> tuple[int, int]:
    low = video.limits.min_pixels or settings.min_pixels or 1
    high = video.limits.max_pixels or settings.max_pixels or _NO_LIMIT
    total_low = settings.min_total_pixels or 1
    total_high = video.sampling.total_pixels or settings.total_pixels or _NO_LIMIT
    _check_order(low, high, total_low, total_high, frames, name)
    height, width = original
    factor = settings.patch * settings.merge
    try:
        if settings.whole_clip:
            most = min(frames * high, total_high)
            if settings.capped:
                # As Qwen3VLVideoProcessor has it. What a row sets is not raised.
                own = video.limits.max_pixels or video.sampling.total_pixels
                most = frames * max(min(high, total_high // frames), 0 if own else int(total_low * 1.05))
            bounds = max(frames * low, total_low), most
            return resize_whole_clip(frames, height, width, settings.frames_per_patch, factor, *bounds)
        return resize_one_frame(height, width, factor, low, min(high, total_high // frames))
    except ValueError:
        raise UserError(
            f"{name} is {width}×{height} pixels; one side may be at most 200 times the other. "
            "Crop it or remove the row."
        ) from None


def _check_order(low: int, high: int, total_low: int, total_high: int, frames: int, name: str) -> None:
    least = max((frames * low, f"min_pixels {low}"), (total_low, f"a minimum of {total_low} pixels for a video"))
    most = min((frames * high, f"max_pixels {high}"), (total_high, f"total_pixels {total_high}"))
    if least[0] > most[0]:
        raise UserError(
            f"{name}: its {frames} frames cannot have both {least[1]} and {most[1]}; limits that are not in the "
            "row are the model's. Use fewer frames or change a limit."
        )
