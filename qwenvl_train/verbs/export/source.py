"""What is exported: a checkpoint, its base model, and the run that wrote it."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenvl_train.config.inference import run_folder_of
from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError
from qwenvl_train.model.published import StoredTensor, local_folder, tensors_in
from qwenvl_train.model.sharded import is_sharded
from qwenvl_train.model.stored_adapter import StoredAdapter, stored_adapter
from qwenvl_train.run.finished import with_checkpoint
from qwenvl_train.run.lineage import MERGED
from qwenvl_train.verbs.export.settings import ExportConfig

_TYPES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
_LARGEST_RANK = 512
"""The largest rank that vLLM 0.33 loads."""


@dataclass(frozen=True)
class Source:
    config: ExportConfig
    """The settings, with the checkpoint in model.path and without quantization."""
    adapter: StoredAdapter | None
    """The checkpoint, unless it is a whole model."""
    base: ModelConfig
    """The model that was fine-tuned, as the run names it. A whole model without a run is its own base."""
    base_folder: Path
    tensors: dict[str, StoredTensor]
    """The weights of the base model."""
    run: Path | None

    @property
    def dtype(self) -> str:
        """The type of the weights to write: bf16, fp16 or fp32."""
        if self.config.export.dtype != "auto":
            return self.config.export.dtype
        commonest, _ = Counter(tensor.dtype for tensor in self.tensors.values()).most_common(1)[0]
        return _TYPES.get(commonest, "fp32")

    @property
    def has_own_base(self) -> bool:
        """Whether an adapter needs a base model of its own, since a component was trained in full."""
        return self.adapter is not None and bool(self.adapter.settings.get("modules_to_save"))

    @property
    def adapts_vision(self) -> bool:
        """Whether the adapter has layers outside of the language model."""
        assert self.adapter is not None
        targets = self.adapter.settings["target_modules"]
        names = [targets] if isinstance(targets, str) else targets
        return any("visual" in name for name in names)


def find_source(config: ExportConfig) -> Source:
    """Return what is exported. Raise UserError if it or its base model is not there, or if it has no such form."""
    model = config.model.model_copy(update={"quantize": "none"})  # adapters are added to the 16-bit weights
    named, config = config.model, with_checkpoint(config.model_copy(update={"model": model}))
    adapter, run = stored_adapter(config.model), _run_of(config)
    base = adapter.base if adapter else _base_of_whole_model(config, named, run)
    folder = local_folder(base)
    if not (folder / "config.json").is_file():
        instead = "" if adapter else f", or export model.path={config.model.path} without its run"
        raise UserError(f"the base model {base.path} is not there; move it back{instead}.")
    if config.export.form == "adapter":
        _refuse_as_adapter(config, adapter)
    return Source(config, adapter, base, folder, tensors_in(folder), run)


def facts_in(run: Path | None, name: str) -> Any:
    """Return the content of a JSON file of a run folder, or an empty dictionary if there is none."""
    try:
        return json.loads((run / name).read_text(encoding="utf-8")) if run else {}
    except (OSError, ValueError):
        return {}


def _run_of(config: ExportConfig) -> Path | None:
    """Return the run folder that holds the checkpoint, or None."""
    folder = run_folder_of(config.run or config.model.path)
    return folder if (folder / "config.yaml").is_file() else None


def _base_of_whole_model(config: ExportConfig, named: ModelConfig, run: Path | None) -> ModelConfig:
    """Return the model that a run trained in full. Without run=, a whole model stands for itself, unless it has none of
    the files that tell its names.

    Args:
        named: The model that the settings of the run name.
    """
    if run is None or (config.run is None and not is_sharded(Path(config.model.path).expanduser())):
        return config.model
    if (run / MERGED).is_dir():
        return config.model.model_copy(update={"path": str(run / MERGED), "revision": None})
    environment = facts_in(run, "environment.json")
    path = environment.get("model", {}).get("path", named.path)
    here = next((at for at in (Path(path), Path(environment.get("working_directory", ""), path)) if at.exists()), None)
    revision = named.revision if here is None else None
    return config.model.model_copy(update={"path": str(here or path), "revision": revision})


def _refuse_as_adapter(config: ExportConfig, adapter: StoredAdapter | None) -> None:
    if adapter is None:
        raise UserError(
            f"export.form=adapter: {config.model.path} has no adapter but is a whole model; set export.form=merged."
        )
    settings = adapter.settings
    ranks = [adapter.rank, *(settings.get("rank_pattern") or {}).values()]
    reason = None
    if settings.get("use_dora"):
        reason = "vLLM does not load DoRA"
    elif settings.get("bias", "none") != "none" or settings.get("lora_bias"):
        reason = "vLLM does not load adapters with biases"
    elif max(ranks) > _LARGEST_RANK:
        reason = f"its rank is {max(ranks)}, and vLLM loads up to {_LARGEST_RANK}"
    if reason:
        raise UserError(f"export.form=adapter: {reason}; set export.form=merged.")
