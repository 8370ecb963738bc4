"""The processor of a run, which is the checkpoint's own with the limits that the run sets."""

from transformers import AutoProcessor

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.model.pretrained import from_pretrained
from qwenvl_train.model.stored_adapter import processor_source


def load_processor(config: ModelConfig, family: Family):
    """Return the processor with the limits of this run. Every checkpoint of the run is saved with these limits."""
    return with_limits(from_pretrained(processor_source(config), AutoProcessor), config, family)


def with_limits(processor, config: ModelConfig, family: Family):
    """Set the limits of this run on a processor, and return it."""
    size = dict(processor.image_processor.size)
    size["shortest_edge"] = config.min_pixels or size["shortest_edge"]
    size["longest_edge"] = config.max_pixels or size["longest_edge"]
    _check_order("model.min_pixels", size["shortest_edge"], "model.max_pixels", size["longest_edge"])
    processor.image_processor.size = type(processor.image_processor.size)(**size)
    _set_video_limits(processor.video_processor, config, family)
    return processor


def _set_video_limits(video_processor, config: ModelConfig, family: Family) -> None:
    """Set the limits of the video processor.

    Depending on the family, a processor has pixel limits for one frame or for the whole clip. A run applies the other
    kind, too. Where the processor can hold it, it is saved as the processor's cap.
    """
    video = config.video
    video_processor.fps = video.fps or video_processor.fps
    video_processor.min_frames = video.min_frames or video_processor.min_frames
    video_processor.max_frames = video.max_frames or video_processor.max_frames
    fewest, most = video_processor.min_frames, video_processor.max_frames
    _check_order("model.video.min_frames", fewest, "model.video.max_frames", most)
    low, high, total = video.min_pixels, video.max_pixels, video.total_pixels
    size = dict(video_processor.size)
    match family.video_limits:
        case "frame":
            low, high = low or size["shortest_edge"], high or size["longest_edge"]
            size = {"shortest_edge": low, "longest_edge": high}
        case "clip":
            size["longest_edge"] = total = total or size["longest_edge"]
            if size["shortest_edge"] > total:
                raise UserError(
                    f"model.video.total_pixels ({total}) is below {size['shortest_edge']}, "
                    "the least that this checkpoint allows for a video; raise it."
                )
    _check_order("model.video.min_pixels", low, "model.video.max_pixels", high)
    if low and total and 2 * low > total:
        raise UserError(
            f"model.video.total_pixels ({total}) is too small for two frames of model.video.min_pixels ({low}), "
            "and a video has at least two."
        )
    video_processor.size = type(video_processor.size)(**size)
    _set_cap(video_processor, config, family)


def _set_cap(video_processor, config: ModelConfig, family: Family) -> None:
    """Set cap_pixels_per_frame, which limits each frame of a family whose limits are those of the whole clip.

    Without a setting, it is the limit with which the models were trained, that of qwen-vl-utils. Later versions of
    transformers will cap by default, so what is saved is never unset.
    """
    capped = video_processor.cap_pixels_per_frame
    if family.video_limits == "frame":
        if capped:
            raise UserError(
                f"The video processor of model.path {config.path} has cap_pixels_per_frame=true, which is not "
                f"supported for {family.name}: set it to false there, and set model.video.total_pixels instead."
            )
        video_processor.cap_pixels_per_frame = False
        return
    token = (video_processor.patch_size * video_processor.merge_size) ** 2
    if config.video.max_pixels is not None:
        tokens = config.video.max_pixels // token
    elif capped is None:
        tokens = video_processor.max_video_tokens
    else:
        return
    # The processor raises a cap that is below 1.05 times the least for a whole clip. Then it cannot hold this one.
    least, most = video_processor.size["shortest_edge"], video_processor.size["longest_edge"]
    holds = int(least * 1.05) <= min(tokens * token, most // video_processor.max_frames)
    video_processor.cap_pixels_per_frame = holds
    if holds:
        video_processor.max_video_tokens = tokens


def _check_order(low_key: str, low: int | None, high_key: str, high: int | None) -> None:
    if low and high and low > high:
        raise UserError(
            f"{low_key} ({low}) is above {high_key} ({high}); null takes the checkpoint's value, so set both."
        )
