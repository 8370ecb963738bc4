"""The settings by which a checkpoint's video processor cuts clips, with the values that the configuration overrides."""

from dataclasses import dataclass

from qwenvl_train.config.schema import VideoConfig
from qwenvl_train.families.family import Family

_USUAL_FPS = 2.0
"""The rate that is used when a processor names none. The models were trained on it."""


@dataclass(frozen=True)
class ClipSettings:
    patch: int
    merge: int
    frames_per_patch: int
    """The number of frames that one patch spans in time."""
    fps: float
    min_frames: int
    max_frames: int
    min_pixels: int | None
    """The least number of pixels of one resized frame."""
    max_pixels: int | None
    """The largest number of pixels of one resized frame."""
    min_total_pixels: int | None
    """The least number of pixels of all resized frames of a clip together."""
    total_pixels: int | None
    """The largest number of pixels of all resized frames of a clip together."""
    whole_clip: bool
    """Whether the published size rule applies to the whole clip instead of one frame."""
    capped: bool
    """Whether the processor itself limits each frame of a whole clip."""
    timed: bool
    """Whether the model is given the time of the frames in seconds, so that it must be known."""

    @classmethod
    def of(cls, video_processor, family: Family, config: VideoConfig) -> "ClipSettings":
        whole_clip = family.video_limits == "clip"
        low, high = video_processor.size["shortest_edge"], video_processor.size["longest_edge"]
        capped = whole_clip and bool(video_processor.cap_pixels_per_frame)
        side = video_processor.patch_size * video_processor.merge_size
        return cls(
            patch=video_processor.patch_size,
            merge=video_processor.merge_size,
            frames_per_patch=video_processor.temporal_patch_size,
            fps=config.fps or video_processor.fps or _USUAL_FPS,
            min_frames=config.min_frames or video_processor.min_frames,
            max_frames=config.max_frames or video_processor.max_frames,
            min_pixels=config.min_pixels or (None if whole_clip else low),
            # A cap is in whole tokens, so that it may be below config.max_pixels.
            max_pixels=(
                video_processor.max_video_tokens * side**2
                if capped
                else config.max_pixels or (None if whole_clip else high)
            ),
            min_total_pixels=low if whole_clip else None,
            total_pixels=config.total_pixels or (high if whole_clip else None),
            whole_clip=whole_clip,
            capped=capped,
            timed=family.video_time != "pairs",
        )
