"""Qwen3-VL with mixture-of-experts decoder layers. The vision tower and the mergers are those of dense Qwen3-VL."""

from dataclasses import replace

from qwenvl_train.families import qwen3_vl

FAMILY = replace(
    qwen3_vl.FAMILY,
    model_type="qwen3_vl_moe",
    name="Qwen3-VL-MoE",
    expert_weights=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
)
