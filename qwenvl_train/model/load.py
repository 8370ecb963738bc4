"""From model.path to a model of a known family and its processor, with errors that say what to do offline."""

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
    family = family_of(_read(config, AutoConfig).model_type, f"model.path {config.path}")
    if config.family is not None and config.family != family.model_type:
        raise UserError(
            f"model.path {config.path} holds a {family.model_type}, but model.family asks for {config.family}; "
            "choose the model= entry of that family, or model=custom."
        )
    return family


def load_processor(config: ModelConfig):
    """With the pixel limits of this run, which every checkpoint then carries."""
    processor = _read(config, AutoProcessor)
    size = dict(processor.image_processor.size)
    size["shortest_edge"] = config.min_pixels or size["shortest_edge"]
    size["longest_edge"] = config.max_pixels or size["longest_edge"]
    if size["shortest_edge"] > size["longest_edge"]:
        raise UserError(
            f"model.min_pixels ({size['shortest_edge']}) is above model.max_pixels ({size['longest_edge']}); "
            "a null takes the checkpoint's own, so set both."
        )
    processor.image_processor.size = type(processor.image_processor.size)(**size)
    return processor


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
