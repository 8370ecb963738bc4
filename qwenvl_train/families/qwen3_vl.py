"""Dense Qwen3-VL, which has learned position embeddings, and DeepStack mergers that feed the first decoder layers."""

from qwenvl_train.families.chat_format import QWEN3_VL_THINKING
from qwenvl_train.families.family import Family

FAMILY = Family(
    model_type="qwen3_vl",
    name="Qwen3-VL",
    components={
        "vision": ("model.visual.patch_embed", "model.visual.pos_embed", "model.visual.blocks"),
        "mlp": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "llm": ("model.language_model", "lm_head"),
    },
    default_system=None,
    video_time="timestamps",
    position_side=48,
    video_limits="clip",
    coordinates="relative",
    regions="json",
    other_chats=(QWEN3_VL_THINKING,),
)
