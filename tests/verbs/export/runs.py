"""Run folders with random trained weights, as training leaves them, written without training."""

import json
from pathlib import Path

import torch
from transformers import AutoProcessor

from qwenvl_train.config.compose import compose
from qwenvl_train.families import FAMILIES
from qwenvl_train.model.build import build_model
from qwenvl_train.model.processor_files import save_processor
from qwenvl_train.reporting.folder import RunFolder

MODES = {
    "full": {"tune_mm_vision": True, "tune_mm_mlp": True, "tune_mm_llm": True},
    "lora llm": {"tune_mm_llm": True, "lora.llm": True},
    "lora all": {f"{kind}{name}": True for kind in ("tune_mm_", "lora.") for name in ("vision", "mlp", "llm")},
    "lora + merger": {"tune_mm_mlp": True, "tune_mm_llm": True, "lora.llm": True},
    "qlora": {"tune_mm_mlp": True, "tune_mm_llm": True, "lora.llm": True, "model.quantize": "nf4"},
}


def write_run(folder: Path, checkpoint: Path, model_type: str, rows: Path | None = None, **settings) -> Path:
    """Write a run folder with one checkpoint, and return it. Everything that the settings train is moved at random."""
    held_out = [f"data.eval={rows}"] if rows else []
    words = [f"{key}={str(value).lower()}" for key, value in settings.items()]
    given = [
        f"model.path={checkpoint}",
        f"model.family={model_type}",
        "data.train=" + str(rows or checkpoint),
        *held_out,
    ]
    config = compose([*given, f"output_dir={folder.parent}", f"run_name={folder.name}", *words]).config
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = build_model(config, FAMILIES[model_type], processor, "fp32")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    written = folder / "checkpoints" / "step-3"
    model.save_pretrained(written)
    save_processor(processor, written)
    RunFolder(folder).write_config(config.model_dump(mode="json"))
    (folder / "environment.json").write_text(json.dumps({"model": {"path": str(checkpoint)}, "recipe": "mine"}))
    (folder / "components.json").write_text("[]")
    return folder
