"""Qwen3.5, 3.6 and 3.8 with mixture-of-experts decoder layers, which also have one expert that all tokens share."""

from dataclasses import replace

from qwenvl_train.families import qwen3_5

FAMILY = replace(
    qwen3_5.FAMILY,
    model_type="qwen3_5_moe",
    name="Qwen3.5-MoE",
    expert_weights=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
)
