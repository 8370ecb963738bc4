"""From model.path to a model of a known family and its processor, with errors that say what to do offline."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError
from qwenvl_train.families import family_of
from qwenvl_train.families.family import Family

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_family(config: ModelConfig) -> Family:
    """From the checkpoint's config alone, so that a wrong one is told before weights are read."""
    checkpoint = _read(config, AutoConfig)
    family = family_of(checkpoint.model_type, f"model.path {config.path}")
    if config.family is not None and config.family != family.model_type:
        raise UserError(
            f"model.path {config.path} holds a {family.model_type}, but model.family asks for {config.family}; "
            "choose the model= entry of that family, or model=custom."
        )
    return _with_own_numbers(family, checkpoint.vision_config)


def _with_own_numbers(family: Family, vision) -> Family:
    if family.video_time == "seconds":
        family = replace(family, tokens_per_second=vision.tokens_per_second)
    if family.window_size is not None:
        family = replace(family, window_size=vision.window_size)
    if family.position_side is not None:
        family = replace(family, position_side=math.isqrt(vision.num_position_embeddings))
    return family


def load_processor(config: ModelConfig):
    """With the limits of this run, which every checkpoint then carries."""
    processor = _read(config, AutoProcessor)
    size = dict(processor.image_processor.size)
    size["shortest_edge"] = config.min_pixels or size["shortest_edge"]
    size["longest_edge"] = config.max_pixels or size["longest_edge"]
    _check_order("model.min_pixels", size["shortest_edge"], "model.max_pixels", size["longest_edge"])
    processor.image_processor.size = type(processor.image_processor.size)(**size)
    _set_video_limits(processor.video_processor, config, load_family(config))
    return processor


def _set_video_limits(video_processor, config: ModelConfig, family: Family) -> None:
    """A processor holds limits of one frame or of the whole clip, by family; this run minds the other kind too."""
    if video_processor.cap_pixels_per_frame:
        raise UserError(
            f"The video processor of model.path {config.path} has cap_pixels_per_frame on, which is not supported: "
            "set it to false there, and give model.video.max_pixels and model.video.total_pixels instead."
        )
    # Later versions of transformers are to cap where nothing is said, and would see other sizes than were trained on.
    video_processor.cap_pixels_per_frame = False
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
                    "the least that this checkpoint makes of a clip; raise it."
                )
    _check_order("model.video.min_pixels", low, "model.video.max_pixels", high)
    if low and total and 2 * low > total:
        raise UserError(
            f"model.video.total_pixels ({total}) does not hold two frames of model.video.min_pixels ({low}), "
            "and a clip has two or more."
        )
    video_processor.size = type(video_processor.size)(**size)


def _check_order(low_key: str, low: int | None, high_key: str, high: int | None) -> None:
    if low and high and low > high:
        raise UserError(
            f"{low_key} ({low}) is above {high_key} ({high}); a null takes the checkpoint's own, so set both."
        )


def load_model(config: ModelConfig, family: Family, precision: str) -> PreTrainedModel:
    quantization = None
    if config.quantize == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[precision],
            # Only the language model: the vision side is small and loses most.
            llm_int8_skip_modules=[family.vision_path, "lm_head"],
        )
    model = _read(
        config,
        AutoModelForImageTextToText,
        dtype=DTYPES[precision],
        attn_implementation="sdpa",
        **({"quantization_config": quantization} if quantization else {}),
    )
    for module in model.modules():
        # On some CPUs bitsandbytes repacks weights for inference at the first evaluation, and cannot train them then.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def identity_of(config: ModelConfig) -> str:
    """Another one where the checkpoint is."""
    local = Path(config.path).expanduser()
    if not local.exists():
        return f"{config.path} {_read(config, AutoConfig)._commit_hash}"
    files = sorted(file for file in local.resolve().iterdir() if file.suffix in (".json", ".safetensors", ".bin"))
    return repr([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def _read(config: ModelConfig, auto_class, **options):
    local = Path(config.path).expanduser()
    if local.exists() and not (local / "config.json").is_file():
        raise UserError(f"model.path {local} has no config.json; give the folder of a checkpoint.")
    if not local.exists() and config.path.startswith((".", "/", "~")):
        raise UserError(f"model.path {local} does not exist.")
    where = str(local) if local.exists() else config.path
    disable_progress_bar()
    try:
        return auto_class.from_pretrained(where, revision=config.revision or "main", **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if local.exists():
            raise UserError(f"model.path {where} does not load: {reason}") from error
        raise UserError(
            f"model.path {where} is no local folder and could not be fetched from the model hub: {reason} "
            "Check the name and the network, or download the model and give its folder."
        ) from error
