"""Writes an export to a folder, which is then verified and renamed."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.model.adapter_files import write_adapter
from qwenvl_train.model.load import DTYPES
from qwenvl_train.model.merge import (
    HEAD,
    adapted,
    adapted_layers,
    merged_in_place,
    published_weights,
    use_names_of,
    write_weights,
)
from qwenvl_train.model.pretrained import from_pretrained
from qwenvl_train.model.processor_files import add_older_files
from qwenvl_train.model.published import copy_config, copy_licence, copy_tokenizer, left_out
from qwenvl_train.model.stored_adapter import processor_source
from qwenvl_train.reporting.bar import counting
from qwenvl_train.verbs.export.source import Source

BASE, ADAPTER = "base", "adapter"
"""The folders in an export in the form of an adapter. The first one is only there if a component was trained in
full."""


@dataclass(frozen=True)
class Parts:
    """The folders of an export."""

    model: Path | None
    """Folder of a whole model. None if the published base model serves."""
    adapter: Path | None

    @property
    def processor(self) -> Path:
        return self.model or self.adapter  # type: ignore[return-value]

    @property
    def all(self) -> list[Path]:
        return [folder for folder in (self.model, self.adapter) if folder]


def parts_of(source: Source, folder: Path) -> Parts:
    if source.config.export.form == "merged":
        return Parts(folder, None)
    return Parts(folder / BASE if source.has_own_base else None, folder / ADAPTER)


def write(source: Source, folder: Path, final: Path) -> Parts:
    """Write an export to `folder`, which will have the path `final`. Return its parts."""
    parts = parts_of(source, folder)
    if parts.model:
        parts.model.mkdir(exist_ok=True)
        _write_model(source, parts.model)
    if parts.adapter:
        assert source.adapter is not None
        own = parts_of(source, final.absolute()).model
        write_adapter(source.adapter, str(own or source.base.path), parts.adapter)
        _write_processor(source, parts.adapter)
        copy_licence(source.base_folder, parts.adapter)
    return parts


@torch.no_grad()
def _write_model(source: Source, folder: Path) -> None:
    config, dtype = source.config, DTYPES[source.dtype]
    whole = source.base if source.adapter else config.model
    model = from_pretrained(whole, AutoModelForImageTextToText, dtype=dtype)
    if source.adapter:
        trained = adapted(model, source.adapter)
        if config.export.form == "merged":
            with counting("adding adapters", adapted_layers(trained)) as progress:
                model = merged_in_place(trained, progress)
        else:
            model = trained.unload()  # with the modules that were trained in full, and without adapters
    else:
        use_names_of(source.base, model)
    weights = published_weights(model, head=HEAD in source.tensors) | left_out(source.base_folder, source.tensors)
    with counting("writing weights", len(weights)) as progress:
        write_weights(weights, folder, dtype, config.export.shard_size, progress)
    _write_processor(source, folder)
    copy_config(source.base_folder, folder, str(dtype).removeprefix("torch."))
    copy_licence(source.base_folder, folder)


def _write_processor(source: Source, folder: Path) -> None:
    processor = from_pretrained(processor_source(source.config.model), AutoProcessor)
    processor.save_pretrained(folder)
    copy_tokenizer(source.base_folder, folder)
    add_older_files(processor, folder)
