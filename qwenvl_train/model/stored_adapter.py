"""An adapter as model.path: a folder or hub repository with LoRA weights in PEFT's format, which names the model that
they belong to. This module does not import peft."""

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError

from qwenvl_train.config.schema import ModelConfig, RunConfig
from qwenvl_train.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"
_PROCESSOR = ("processor_config.json", "preprocessor_config.json")

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class StoredAdapter:
    path: str
    """Folder or hub id of the adapter."""
    revision: str | None
    settings: dict[str, Any]
    """Content of adapter_config.json."""
    base: ModelConfig
    """The model settings of the run, with the base model of the adapter as the path."""

    @property
    def rank(self) -> int:
        return self.settings["r"]


def stored_adapter(model: ModelConfig) -> StoredAdapter | None:
    """Return the adapter that model.path contains, or None if it contains a whole model.

    Raises:
        UserError: If the adapter is not a LoRA adapter, or if its base model cannot be found.
    """
    local = Path(model.path).expanduser()
    if local.exists():
        found = None if (local / "config.json").is_file() else local / ADAPTER_CONFIG
    elif model.shape is None:
        found = _config_on_hub(model.path, model.revision or "main")
    else:  # an option of the group model names a whole model, whose hub need not be asked
        found = None
    if found is None or not found.is_file():
        return None
    try:
        settings = json.loads(found.read_text(encoding="utf-8"))
        kind, base, revision = settings["peft_type"], settings["base_model_name_or_path"], settings.get("revision")
    except (ValueError, KeyError, TypeError, OSError):
        raise UserError(f"model.path {model.path}: its {ADAPTER_CONFIG} is damaged.") from None
    if kind != "LORA" or not isinstance(settings.get("r"), int):
        raise UserError(f"model.path {model.path} is an adapter of type {kind}; only LoRA adapters can be loaded.")
    where = _base_path(base, model.path, local)
    # In a local folder nothing has a revision.
    held = model.model_copy(update={"path": where, "revision": None if Path(where).exists() else revision})
    return StoredAdapter(str(local) if local.exists() else model.path, model.revision, settings, held)


def whole_model(model: ModelConfig) -> ModelConfig:
    """Return the settings whose path has the config and the weights of the whole model. For an adapter, this is its
    base model."""
    adapter = stored_adapter(model)
    return adapter.base if adapter else model


def processor_source(model: ModelConfig) -> ModelConfig:
    """Return the settings whose path has the processor. Adapters of this project have one, but PEFT saves none."""
    adapter = stored_adapter(model)
    if adapter is None or any((Path(adapter.path) / name).is_file() for name in _PROCESSOR):
        return model
    return adapter.base


def continues_adapter(config: RunConfig) -> bool:
    """Return whether the run trains the adapter in model.path further, if there is one, instead of merging it."""
    if config.lora.existing == "auto":
        return config.has_adapters
    return config.lora.existing == "continue"


def with_stored_lora(config: C, given: frozenset[str]) -> C:
    """Return the configuration with the rank and the scale of the adapter that the run continues.

    Raises:
        UserError: If the user has set one of them to another value, or if the run cannot continue an adapter.
    """
    adapter = stored_adapter(config.model)
    if adapter is None:
        if "lora.existing" in given and config.lora.existing != "auto":
            raise UserError(
                f"lora.existing={config.lora.existing} has no effect, since model.path {config.model.path} is not an "
                "adapter but a whole model."
            )
        return config
    if not continues_adapter(config):
        return config
    stored = adapter.settings
    values = {
        "rank": stored["r"],
        "alpha": float(stored.get("lora_alpha") or stored["r"]),
        "dropout": float(stored.get("lora_dropout") or 0),
        "rslora": bool(stored.get("use_rslora")),
    }
    for name, value in values.items():
        if f"lora.{name}" in given and getattr(config.lora, name) != value:
            raise UserError(
                f"lora.{name}={getattr(config.lora, name)}: the adapter in model.path {config.model.path} has {value}. "
                f"Leave lora.{name} out to train this adapter further, or set lora.existing=merge to train a new one."
            )
    if config.reference == "adapter" and config.deepspeed.stage == 3:
        raise UserError(
            f"deepspeed=zero3: the reference is the adapter in model.path {config.model.path} as it is now, and ZeRO-3 "
            "cannot hold it beside the trained one; set lora.existing=merge or deepspeed=zero2."
        )
    return config.model_copy(update={"lora": config.lora.model_copy(update=values)})


def _base_path(base: object, path: str, local: Path) -> str:
    """Return the folder or hub id of an adapter's base model. A relative folder is looked for in the working directory,
    beside the adapter, and where the run that wrote the adapter was started."""
    if not isinstance(base, str) or not base:
        raise UserError(
            f"model.path {path} is an adapter that does not name its base model; set base_model_name_or_path in its "
            f"{ADAPTER_CONFIG}."
        )
    folder = Path(base).expanduser()
    for start in (Path(), local, *_started_in(local)):
        if (start / folder).is_dir():
            return str((start / folder).absolute())
    if folder.is_absolute() or base.startswith((".", "~")) or base.count("/") != 1:
        raise UserError(
            f"model.path {path} is an adapter for {base}, which does not exist; move that model back, or set "
            f"base_model_name_or_path in {local / ADAPTER_CONFIG} to its folder."
        )
    return base


def _started_in(adapter: Path) -> list[Path]:
    """Return the working directory of the run that wrote this checkpoint, if its run folder says so."""
    try:
        environment = json.loads((adapter.parent.parent / "environment.json").read_text(encoding="utf-8"))
        return [Path(environment["working_directory"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []


@cache
def _config_on_hub(path: str, revision: str) -> Path | None:
    """Return the downloaded adapter_config.json of a hub repository that has no config.json, or None."""
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        return None  # it is a local path that does not exist
    if isinstance(cached := try_to_load_from_cache(path, ADAPTER_CONFIG, revision=revision), str):
        return Path(cached)
    if isinstance(try_to_load_from_cache(path, "config.json", revision=revision), str):
        return None
    with suppress(OSError, ValueError, HfHubHTTPError):  # reading the config of the model will report these
        try:
            hf_hub_download(path, "config.json", revision=revision)
        except RemoteEntryNotFoundError:
            return Path(hf_hub_download(path, ADAPTER_CONFIG, revision=revision))
    return None
