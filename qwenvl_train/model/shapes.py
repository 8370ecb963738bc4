"""Convert model.shape, the sizes of a model, to the config from which transformers builds the model."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from qwenvl_train.config.schema import ModelConfig, ShapeConfig, VisionShape
from qwenvl_train.errors import UserError
from qwenvl_train.families import family_of
from qwenvl_train.model.stored_adapter import whole_model


def architecture(model: ModelConfig) -> PreTrainedConfig:
    """Return the config of a local checkpoint, or of an adapter's base model, or else one made from model.shape.

    model.shape gives only the sizes of the published model. RoPE settings, token ids and the like are not the
    published ones.
    """
    folder = Path(whole_model(model).path).expanduser()
    if (folder / "config.json").is_file():
        checkpoint = AutoConfig.from_pretrained(str(folder))
        family_of(checkpoint.model_type, f"model.path {folder}")
        return checkpoint
    if model.shape is None or model.family is None:
        raise UserError(
            f"The sizes of model.path {model.path} are not known: it is not a local folder with a config.json, and "
            "model.shape is null. Choose a model= option, or download the checkpoint and give its folder."
        )
    return config_of(family_of(model.family, "model.family").model_type, model.shape)


def config_of(model_type: str, shape: ShapeConfig) -> PreTrainedConfig:
    tie = {"tie_word_embeddings": shape.tie_word_embeddings}
    text = shape.text.model_dump(exclude_none=True) | tie
    vision = _first_generation(shape.vision) if model_type == "qwen2_vl" else shape.vision.model_dump(exclude_none=True)
    return AutoConfig.for_model(model_type, text_config=text, vision_config=vision, **tie)


def _first_generation(shape: VisionShape) -> dict[str, Any]:
    """Return the vision sizes under the names of Qwen2-VL.

    Qwen2-VL calls the width of the vision tower embed_dim, and the width of the language model hidden_size.
    """
    ratio, rest = divmod(shape.intermediate_size, shape.hidden_size)
    assert rest == 0, "Qwen2-VL supports only whole ratios"
    renamed = {"embed_dim": shape.hidden_size, "hidden_size": shape.out_hidden_size, "mlp_ratio": ratio}
    return shape.model_dump(exclude_none=True, exclude={"intermediate_size", "out_hidden_size"}) | renamed


def tower_width(config: PreTrainedConfig) -> int:
    return config.vision_config.embed_dim if config.model_type == "qwen2_vl" else config.vision_config.hidden_size


def head_width(config: PreTrainedConfig) -> int:
    """Return the width of one attention head of the language model."""
    text = config.text_config
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
