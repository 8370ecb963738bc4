"""Dense Qwen3.5, 3.6 and 3.8. Three of four decoder layers are Gated DeltaNet layers, which carry a state from token to
token instead of attending. The vision tower is that of Qwen3-VL without DeepStack."""

from qwenvl_train.families.chat_format import QWEN3_5, QWEN3_5_THINKING, QWEN3_6, QWEN3_8
from qwenvl_train.families.family import Family

FAMILY = Family(
    model_type="qwen3_5",
    name="Qwen3.5",
    components={
        "vision": ("model.visual.patch_embed", "model.visual.pos_embed", "model.visual.blocks"),
        "mlp": ("model.visual.merger",),
        "llm": ("model.language_model", "lm_head"),
    },
    default_system=None,
    video_time="timestamps",
    position_side=48,
    video_limits="clip",
    coordinates="relative",
    regions="json",
    chat=QWEN3_5,
    other_chats=(QWEN3_5_THINKING, QWEN3_6, QWEN3_8),
    linear_attention=True,
)
