"""Run tiny models of each family with and without Liger's kernels on a CPU, with Triton's interpreter.

    TRITON_INTERPRET=1 python -m tests.model.interpreted_liger CHECKPOINTS PICTURE

This is a separate process, since kernels that Triton builds before that variable is set stay built for GPUs. It prints
one JSON object: the message about each family's model, and the differences in loss and gradients for each case.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton.language as tl
from transformers import AutoProcessor
from triton.runtime import interpreter

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.build import about_liger, arrange
from qwenvl_train.model.components import COMPONENTS
from tests.conftest import conversation, sample_of
from tests.loading import renderer_of
from tests.settings import run_config

FULL = {f"tune_mm_{component}": True for component in COMPONENTS} | {"train.checkpointing": "none"}
ADAPTERS = FULL | {f"lora.{component}": True for component in COMPONENTS} | {"lora.dropout": 0.0}
# With reentrant checkpointing, which ZeRO-3 uses, and a merger that PEFT copies.
RECOMPUTED = ADAPTERS | {"lora.mlp": False, "train.checkpointing": "all", "deepspeed.stage": 3}
CASES = {"full": FULL, "adapters, recomputed": RECOMPUTED}
IN_16_BITS = {
    "qwen2_vl": "full",
    "qwen2_5_vl": "adapters, recomputed",
    "qwen3_vl": "full",
    "qwen3_vl_moe": "adapters, recomputed",
    "qwen3_5": "full",
    "qwen3_5_moe": "adapters, recomputed",
}
"""The case of each family that is computed in 16 bits, too."""
ONE_LAYER = {
    "qwen2_vl": {"depth": 1},
    "qwen2_5_vl": {"depth": 1, "fullatt_block_indexes": [0]},
    "qwen3_vl": {"depth": 1, "deepstack_visual_indexes": [0]},
    "qwen3_vl_moe": {"depth": 1, "deepstack_visual_indexes": [0]},
    "qwen3_5": {"depth": 1},
    "qwen3_5_moe": {"depth": 1},
}
"""Settings that give the vision tower few blocks, since the interpreter is slow."""

Outcome = tuple[float, dict[str, torch.Tensor]]


def complete_the_interpreter() -> None:
    """Add what Triton's interpreter lacks: it passes Python numbers, which have no `.to`, and has no CUDA library
    square root."""
    import liger_kernel.ops.rms_norm as rms_norm

    convert = interpreter._implicit_cvt

    def with_floats(value):
        if isinstance(value, float):
            return tl.tensor(interpreter.TensorHandle(np.array([value], dtype=np.float32), tl.float32), tl.float32)
        return convert(value)

    interpreter._implicit_cvt = with_floats
    rms_norm.rsqrt = lambda x: tl.math.rsqrt(x)


def run(
    model_type: str, settings: dict, processor, batch: dict, liger: bool, half: bool = False
) -> tuple[str, Outcome]:
    """Compute loss and gradients. `half` uses 16 bits for frozen parameters and autocast, as a run does. The
    interpreter does not support bf16."""
    config: RunConfig = run_config(**settings, **{"train.liger": liger})
    family = FAMILIES[model_type]
    text: dict[str, Any] = {"num_hidden_layers": 1}
    if family.linear_attention:
        text = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
    model = build_model(model_type, text=text, vision=ONE_LAYER[model_type])
    model = arrange(model.half() if half else model, config, family, processor).train()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
        if "lora_B" in name:  # B starts at 0 and would leave A without a gradient
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    with torch.autocast("cpu", torch.float16, enabled=half):
        loss = -model(**batch).log_probs.mean()
    loss.backward()
    gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return about_liger(model, family) if liger else "", (loss.item(), gradients)


def apart(one: Outcome, other: Outcome) -> dict[str, float]:
    assert one[1].keys() == other[1].keys()
    worst = max(
        ((one[1][name] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-6)).item()
        for name, gradient in other[1].items()
    )
    return {"loss": abs(one[0] - other[0]) / abs(other[0]), "gradients": worst}


def error(one: Outcome, exact: Outcome) -> float:
    """Return the relative error over all gradients together."""
    squares = [((one[1][name] - gradient) ** 2).sum() for name, gradient in exact[1].items()]
    return (torch.stack(squares).sum() / sum((gradient**2).sum() for gradient in exact[1].values())).sqrt().item()


def compare(model_type: str, checkpoint: Path, picture: Path) -> dict:
    processor = AutoProcessor.from_pretrained(checkpoint)
    size = processor.image_processor.size
    processor.image_processor.size = type(size)(**dict(size) | {"shortest_edge": 1})
    renderer = renderer_of(processor, checkpoint)
    row = conversation(("user", [picture, "What?"]), ("assistant", ["A ring."]))
    batch = collate([renderer.render(sample_of(row))], renderer)
    found = {}
    for name, settings in CASES.items():
        given = (model_type, settings, processor, batch)
        told, fused = run(*given, liger=True)
        _, plain = run(*given, liger=False)
        found[name] = {"told": told} | apart(fused, plain)
        if name == IN_16_BITS[model_type]:
            half, fused_half = (run(*given, liger=liger, half=True)[1] for liger in (False, True))
            found[name]["in 16 bits"] = {"plain": error(half, plain), "fused": error(fused_half, plain)}
    return found


if __name__ == "__main__":
    complete_the_interpreter()
    folder, picture = (Path(argument) for argument in sys.argv[1:])
    print(json.dumps({model_type: compare(model_type, folder / model_type, picture) for model_type in FAMILIES}))
