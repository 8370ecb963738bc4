"""The model cards of an export, from the files of the run and the base model."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoProcessor

from qwenvl_train.model.pretrained import from_pretrained
from qwenvl_train.model.processor_files import IMAGES, VIDEOS
from qwenvl_train.reporting.checkpoints import evaluation_in
from qwenvl_train.reporting.model_card import ExportedModel, export_card
from qwenvl_train.reporting.wording import count
from qwenvl_train.step_folders import step_of
from qwenvl_train.verbs.export.source import Source, facts_in
from qwenvl_train.verbs.export.writing import Parts

Loading = list[tuple[str, str, str]]


def write_cards(
    source: Source,
    parts: Parts,
    name: str,
    limits: dict[str, Any],
    thinking: list[str],
    loading: Loading,
    compared: str | None,
) -> None:
    config = settings_of(source.run)
    checkpoint = Path(source.config.model.path)
    for folder in parts.all:
        is_adapter = folder == parts.adapter
        card = ExportedModel(
            name=name,
            what=_what(source, is_adapter, parts),
            is_adapter=is_adapter,
            base=source.base.path,
            revision=source.base.revision,
            licence=_licence(source.base_folder),
            pixels=_in_words(limits),
            thinking=thinking,
            loading=loading,
            compared=f"{compared[0].upper()}{compared[1:]}." if compared else None,
            config=config,
            environment=facts_in(source.run, "environment.json"),
            components=facts_in(source.run, "components.json") or [],
            evaluation=evaluation_in(checkpoint) if source.run else {},
            data=[_of_data(entry) for entry in config.get("data", {}).get("train", [])],
            step=step_of(checkpoint) if source.run else None,
        )
        (folder / "README.md").write_text(export_card(card), encoding="utf-8")


def limits_of(source: Source, folder: Path) -> dict[str, Any]:
    """Return the settings of the processors that limit images and videos."""
    read = [json.loads((folder / name).read_text(encoding="utf-8")) for name in (IMAGES, VIDEOS)]
    wanted = ("fps", "min_frames", "max_frames", "size", "cap_pixels_per_frame", "max_video_tokens")
    return {"images": read[0]["size"], "videos": {key: read[1][key] for key in wanted if read[1].get(key) is not None}}


def own_limits(source: Source, limits: dict[str, Any]) -> dict[str, int] | None:
    """Return the pixel limits of images if those of the base model are others."""
    base = dict(from_pretrained(source.base, AutoProcessor).image_processor.size)
    edges = ("shortest_edge", "longest_edge")
    return None if all(base[edge] == limits["images"][edge] for edge in edges) else limits["images"]


def _in_words(limits: dict[str, Any]) -> list[str]:
    size, videos = limits["images"], limits["videos"]
    lines = [f"images: {count(size['shortest_edge'])} to {count(size['longest_edge'])} pixels"]
    options = ", ".join(f"{name} {value}" for name, value in videos.items() if name != "size")
    low, high = videos["size"]["shortest_edge"], videos["size"]["longest_edge"]
    return [*lines, f"videos: {count(low)} to {count(high)} pixels, {options}"]


def _what(source: Source, is_adapter: bool, parts: Parts) -> str:
    if is_adapter:
        assert source.adapter
        assert parts.adapter
        stored = json.loads((parts.adapter / "adapter_config.json").read_text(encoding="utf-8"))
        layers = sorted({name.rpartition(".")[2] for name in stored["target_modules"]})
        targets = ", ".join([*layers, *(stored.get("target_parameters") or [])])
        own = " They belong to the model in the folder beside them, not to the published one." if parts.model else ""
        alpha = stored.get("lora_alpha")
        return f"LoRA weights of rank {source.adapter.rank} (alpha {alpha:g}) for {targets}.{own}"
    if parts.adapter:
        return "The base model of the adapter beside this folder, with the components that were trained in full."
    return f"A whole model in {source.dtype}{', with its adapters added to the weights' if source.adapter else ''}."


def settings_of(run: Path | None) -> dict[str, Any]:
    """Return the settings of a run, or none without a run."""
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) if run else {}


def _licence(base: Path) -> dict[str, Any]:
    """Return what the card of the base model says about its licence."""
    card = base / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if not text.startswith("---\n"):
        return {}
    try:
        facts = yaml.safe_load(text.split("---\n", 2)[1]) or {}
    except yaml.YAMLError:
        return {}
    return {key: facts[key] for key in ("license", "license_name", "license_link") if key in facts}


def _of_data(entry: dict[str, Any]) -> str:
    """Return the name of an entry of data.train with a digest of its file, as it is now."""
    path = Path(entry["path"])
    if not path.is_file():
        return entry["path"]
    with path.open("rb") as file:
        return f"{entry['path']} (SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()})"
