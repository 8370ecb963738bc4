"""What a run starts from: the adapter in model.path, its base model, and the merged model that the run writes if the
adapter is not trained further."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from qwenvl_train.config.schema import ModelConfig, RunConfig
from qwenvl_train.errors import UserError
from qwenvl_train.files import publish_folder
from qwenvl_train.model.load import identity_of
from qwenvl_train.model.stored_adapter import StoredAdapter, continues_adapter, stored_adapter
from qwenvl_train.reporting.console import print_line
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.rows import first_then_others
from qwenvl_train.training.disk_space import free_bytes, gib, size_of

MERGED = "base_model"
"""Name of the folder in a run folder that holds the merged model."""
_ORIGIN = "merged_from.json"


def lineage(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Return what the run in `folder` starts from, as plain data for environment.json."""
    adapter = stored_adapter(config.model)
    if adapter is None:
        return {"path": config.model.path}
    facts = {"path": config.model.path, "adapter_rank": adapter.rank, "base_model": adapter.base.path}
    if continues_adapter(config):
        return facts | {"adapter": "trained further"}
    return facts | {"adapter": "merged into its base model", "merged_model": folder / MERGED}


def in_words(facts: dict[str, Any]) -> str | None:
    """Return the lineage as a line for the terminal, or None for a run that starts from a whole model."""
    if "adapter" not in facts:
        return None
    merged = f": {facts['merged_model']}" if "merged_model" in facts else ""
    return (
        f"{facts['path']} is a LoRA adapter of rank {facts['adapter_rank']} for {facts['base_model']}; it is "
        f"{facts['adapter']}{merged}"
    )


def with_merged_model(context: RunContext, folder: Path) -> RunContext:
    """Return the context with the merged model in place of the adapter in model.path, unless the run trains the adapter
    further. The main process writes the merged model once; a resumed run finds it in its folder."""
    config = context.config
    adapter = stored_adapter(config.model)
    if adapter is None or continues_adapter(config):
        return context
    first_then_others(context.state, lambda: _merge(adapter, config.model, folder / MERGED, context.state))
    model = config.model.model_copy(update={"path": str((folder / MERGED).absolute()), "revision": None})
    return replace(context, config=config.model_copy(update={"model": model}))


def _merge(adapter: StoredAdapter, model: ModelConfig, folder: Path, state: PartialState) -> None:
    origin = {"adapter": model.path, "base_model": adapter.base.path, "files": identity_of(model)}
    if folder.is_dir():
        if _origin(folder) == origin:
            return
        raise UserError(
            f"{folder} was merged from other files than those of model.path {model.path} now; choose another run_name, "
            f"or delete {folder} if the run has no checkpoint yet."
        )
    if not state.is_main_process:
        raise UserError(f"{folder} is not there; all processes must share the disk of output_dir.")
    from qwenvl_train.model.merge import write_merged

    _refuse_full_disk(adapter, folder)
    print_line(f"merging {model.path} into {adapter.base.path} …")
    staging = folder.with_name(f".{folder.name}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    write_merged(adapter, model, staging)
    (staging / _ORIGIN).write_text(json.dumps(origin, indent=2), encoding="utf-8")
    publish_folder(staging, folder)


def _refuse_full_disk(adapter: StoredAdapter, folder: Path) -> None:
    """Raise UserError if the merged model does not fit on the disk. The size of a base model on the hub is not
    known."""
    base = Path(adapter.base.path)
    needed, free = size_of(base) if base.is_dir() else 0, free_bytes(folder)
    if needed > free:
        raise UserError(
            f"output_dir: the merged model needs about {gib(needed)} in {folder}, and {gib(free)} are free; free some "
            "space, choose another output_dir, or set lora.existing=continue."
        )


def _origin(folder: Path) -> Any:
    try:
        return json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
