"""Qwen3-VL with mixture-of-experts decoder layers; the vision side is Qwen3-VL's."""

from dataclasses import replace

from qwenvl_train.families import qwen3_vl

FAMILY = replace(
    qwen3_vl.FAMILY,
    model_type="qwen3_vl_moe",
    name="Qwen3-VL-MoE",
    expert_weights=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
)
