"""Qwen2.5-VL, which has window attention in most vision blocks."""

from qwenvl_train.families.family import Family

FAMILY = Family(
    model_type="qwen2_5_vl",
    name="Qwen2.5-VL",
    components={
        "vision": ("model.visual.patch_embed", "model.visual.blocks"),
        "mlp": ("model.visual.merger",),
        "llm": ("model.language_model", "lm_head"),
    },
    default_system="You are a helpful assistant.",
    video_time="seconds",
    tokens_per_second=2,
    window_size=112,
    video_limits="frame",
    coordinates="resized",
    regions="json",
)
