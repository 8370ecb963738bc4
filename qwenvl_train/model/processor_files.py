"""The files of a processor: those that transformers 5 writes, and those that published repositories have and that other
programs read (SGLang, llama.cpp's converter, older transformers)."""

import json
from pathlib import Path
from typing import Any

IMAGES, VIDEOS = "preprocessor_config.json", "video_preprocessor_config.json"
_TOKENIZER, _TEMPLATE = "tokenizer_config.json", "chat_template.json"


def save_processor(processor: Any, folder: Path) -> None:
    processor.save_pretrained(folder)
    add_older_files(processor, folder)


def add_older_files(processor: Any, folder: Path) -> None:
    """Add the files that `processor.save_pretrained(folder)` leaves out: one each for images and videos, and the chat
    template where readers looked for it before there was chat_template.jinja."""
    name = type(processor).__name__
    images, videos = processor.image_processor.to_dict(), processor.video_processor.to_dict()
    # Readers before transformers 4.52 know only these two names of the limits.
    limits = {"min_pixels": images["size"]["shortest_edge"], "max_pixels": images["size"]["longest_edge"]}
    _write(folder / IMAGES, images | limits | {"processor_class": name})
    _write(folder / VIDEOS, videos | {"processor_class": name})
    template = processor.chat_template
    config = json.loads((folder / _TOKENIZER).read_text(encoding="utf-8"))
    # Before transformers 5, a list of special tokens had this name, and the other name was that of a dictionary.
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    if isinstance(template, str):
        config["chat_template"] = template
        _write(folder / _TEMPLATE, {"chat_template": template})
    _write(folder / _TOKENIZER, config)


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
