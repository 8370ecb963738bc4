"""Checkpoints and rows that are as small as possible and still reach every branch."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from qwenvl_train.families.tiny import build_model, save_tiny
from tests.videos import write_video

_DEEPSTACK = {"depth": 1, "deepstack_visual_indexes": [0]}
_VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 1},
    "qwen2_5_vl": {"depth": 2, "fullatt_block_indexes": [1]},
    "qwen3_vl": _DEEPSTACK,
    "qwen3_vl_moe": _DEEPSTACK,
    "qwen3_5": {"depth": 1},
    "qwen3_5_moe": {"depth": 1},
}
_TWO_KINDS = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
_TEXT: dict[str, dict[str, Any]] = {"qwen3_5": _TWO_KINDS, "qwen3_5_moe": _TWO_KINDS}
"""One block of each kind: with and without windows in Qwen2.5-VL's tower, one for DeepStack in Qwen3-VL's, and one of
both kinds in Qwen3.5's language model."""
_WORDS = 270
"""The words of the row without media, so many that it does not share a packed row with the others."""


def save_checkpoint(family: str, folder: Path) -> Path:
    model = build_model(family, text=_TEXT.get(family, {"num_hidden_layers": 1}), vision=_VISION[family])
    return save_tiny(family, folder / family, model=model)


def save_rows(folder: Path) -> dict[str, Path]:
    """Write a file of three rows for each method: with images, with a video, with text only."""
    folder.mkdir()
    Image.new("RGB", (84, 84), "red").save(folder / "square.png")
    Image.new("RGB", (120, 60), "blue").save(folder / "wide.png")
    write_video(folder / "clip.mp4", frames=10, fps=5)
    pictures = {"images": ["square.png", "wide.png"], "prompt": "<image><image>Are the two the same?"}
    clip = {"videos": ["clip.mp4"], "prompt": "<video>What happens?"}
    words = {"prompt": " ".join(["yes no"] * (_WORDS // 2))}
    chosen, rejected = "They are different.", "yes"
    asked = (pictures, clip, words)
    answered = [{**row, "query": row["prompt"], "response": chosen} for row in asked]
    for row in answered:
        del row["prompt"]
    return {
        "sft": _write(folder / "answers.jsonl", answered),
        "dpo": _write(folder / "pairs.jsonl", [{**row, "chosen": chosen, "rejected": rejected} for row in asked]),
    }


def _write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
