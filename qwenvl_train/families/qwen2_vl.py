"""Qwen2-VL, which has full attention in every vision block."""

from qwenvl_train.families.family import Family

FAMILY = Family(
    model_type="qwen2_vl",
    name="Qwen2-VL",
    components={
        "vision": ("model.visual.patch_embed", "model.visual.blocks"),
        "mlp": ("model.visual.merger",),
        "llm": ("model.language_model", "lm_head"),
    },
    default_system="You are a helpful assistant.",
    video_time="pairs",
    video_limits="frame",
    coordinates="relative",
    regions="tokens",
)
