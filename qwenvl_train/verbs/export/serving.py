"""How to load an export: lines for Python and for vLLM."""

import json
import shlex
from pathlib import Path
from typing import Any

from qwenvl_train.verbs.export.source import Source
from qwenvl_train.verbs.export.writing import Parts

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values of --max-lora-rank in vLLM 0.33."""


def python_lines(source: Source, parts: Parts) -> list[str]:
    """Return the lines that load the model with transformers. `parts` are the final folders."""
    model = str(parts.model or source.base.path)
    revision = f", revision={source.base.revision!r}" if parts.model is None and source.base.revision else ""
    lines = [
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        f'model = AutoModelForImageTextToText.from_pretrained({model!r}{revision}, dtype="auto")',
        f"processor = AutoProcessor.from_pretrained({str(parts.processor)!r})",
    ]
    if parts.adapter:
        lines.insert(0, "from peft import PeftModel")
        lines.insert(3, f"model = PeftModel.from_pretrained(model, {str(parts.adapter)!r})")
    return lines


def serve_line(
    source: Source, parts: Parts, name: str, limits: dict[str, Any] | None, template_options: dict[str, bool]
) -> str:
    """Return the command that serves the model with vLLM. `limits` are the pixel limits of the run if the base model
    has others, since vLLM takes the processor of the base model. `template_options` are what the chat template must be
    told."""
    words = ["vllm", "serve", str(parts.model or source.base.path)]
    if parts.model is None and source.base.revision:
        words += ["--revision", source.base.revision]
    if parts.adapter:
        assert source.adapter is not None
        rank = max([source.adapter.rank, *(source.adapter.settings.get("rank_pattern") or {}).values()])
        words += ["--enable-lora", "--max-lora-rank", str(next(most for most in _RANKS if most >= rank))]
        if source.adapts_vision:
            words.append("--enable-tower-connector-lora")
        words += ["--lora-modules", f"{name}={parts.adapter}"]
    if limits:
        words += ["--mm-processor-kwargs", json.dumps({"size": limits})]
    if template_options:
        words += ["--default-chat-template-kwargs", json.dumps(template_options)]
    return shlex.join(words)


def name_of(source: Source, final: Path) -> str:
    return source.run.name if source.run else final.name
