"""The raw rows of parquet files, arrow folders and hub ids, memory-mapped by the `datasets` library."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
from datasets import (
    Dataset,
    DatasetDict,
    DatasetInfo,
    Features,
    IterableDataset,
    IterableDatasetDict,
    Json,
    LargeList,
    List,
)
from datasets.exceptions import DatasetsError
from datasets.table import InMemoryTable, table_cast
from huggingface_hub import HfApi

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.sources.source import LARGEST_ROW, stamp, too_large
from qwenvl_train.errors import UserError

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, eq=False)
class TableRows:
    """A table of raw rows. Media are returned as they are stored, pictures as `{bytes, path}`.

    A table gives every row the keys of all rows, so a key without a value is treated as absent from the row.
    """

    name: str
    folder: Path | str
    dataset: Dataset
    """The dataset in arrow format, in which each row is a table."""
    stamps: tuple[str, ...]
    """The stamps of the files."""
    before: int = 0
    """The number of rows before these, where they are a part of a larger table."""

    def __len__(self) -> int:
        return len(self.dataset)

    def line(self, index: int) -> int:
        return self.before + index + 1

    def fingerprint(self) -> str:
        return "\n".join(self.stamps)

    def columns(self) -> list[str]:
        return self.dataset.column_names

    def row(self, index: int) -> object:
        where = f"{self.name}:{self.line(index)}"
        try:
            table = self.dataset[index]
            if table.nbytes > LARGEST_ROW:
                raise too_large(where, table.nbytes)
            return _value(table.to_pylist()[0], self.dataset.features) or {}
        except (OSError, ValueError, RecursionError, pyarrow.ArrowException) as error:
            raise UserError(f"{where} cannot be read: {error}.") from None


def _value(stored: Any, feature: Any) -> Any:
    match stored, feature:
        case str(), Json():
            return json.loads(stored)
        case list(), List() | LargeList():
            return [_value(item, feature.feature) for item in stored]
        case dict(), _:
            features = feature if isinstance(feature, dict) else {}
            values = {key: _value(value, features.get(key)) for key, value in stored.items()}
            present = {key: value for key, value in values.items() if value is not None}
            return None if stored and not present else present
    return stored


def part_of_table(table: pyarrow.Table, features: Features, name: str, folder: Path | str, before: int) -> TableRows:
    """Return the rows of `table`, a part of a larger table in which `before` rows come before it."""
    # Without this fingerprint, `datasets` would compute one from the content.
    cast = InMemoryTable(table_cast(table, features.arrow_schema))
    dataset = Dataset(cast, info=DatasetInfo(features=features), fingerprint="part")
    return TableRows(name, folder, dataset.with_format("arrow"), (), before)


def open_parquet(path: Path, cache: Path, address: str | None = None) -> TableRows:
    """Open a parquet file. It is copied to the cache once, as arrow; processes that open it at the same time wait for
    the copy."""
    name, folder = address or str(path), address.rpartition("/")[0] if address else path.absolute().parent
    mark = stamp(path)
    try:
        with path.open("rb") as file:
            rows = pyarrow.parquet.read_metadata(file).num_rows
        if rows == 0:
            raise UserError(f"{name} has no rows.")
        with _no_bars():
            dataset = Dataset.from_parquet(str(path), cache_dir=str(cache / "tables"))
    except (ValueError, DatasetsError, pyarrow.ArrowException) as error:
        raise UserError(f"{name} cannot be read as parquet: {error.__cause__ or error}.") from None
    return TableRows(name, folder, dataset.with_format("arrow"), (mark,))


def open_arrow_folder(folder: Path, config: SourceConfig) -> TableRows:
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (ValueError, LookupError, DatasetsError, pyarrow.ArrowException) as error:
        # `datasets` raises an IndexError for a dataset without rows.
        what = "has no rows" if isinstance(error, IndexError) else f"is not a complete arrow dataset: {error}"
        raise UserError(f"{folder} {what}.") from None
    if isinstance(loaded, DatasetDict):
        split = _split(loaded, config)
        return _rows(loaded[split], str(folder / split), folder.absolute())
    if config.split is not None:
        raise UserError(f"{folder} has no splits; remove split={config.split}.")
    return _rows(loaded, str(folder), folder.absolute())


def open_hub(config: SourceConfig) -> TableRows:
    with hub_errors(config):
        dataset, name = load_hub(config)
    return _rows(dataset, name, Path.cwd())


def load_hub(config: SourceConfig, streaming: bool = False) -> tuple[Dataset | IterableDataset, str]:
    """Return the split that the configuration selects, and its name."""
    with _no_bars():
        loaded = datasets.load_dataset(
            config.path, name=config.subset, split=config.split, revision=config.revision, streaming=streaming
        )
    split = config.split or _split(loaded, config)
    dataset = loaded if config.split else loaded[split]
    return dataset, "/".join(part for part in (config.path, config.subset, split) if part)


def at_commit(config: SourceConfig) -> SourceConfig:
    """Return the configuration with its revision replaced by one commit, which cannot change."""
    if config.revision and _COMMIT.fullmatch(config.revision):
        return config
    with hub_errors(config):
        commit = HfApi().dataset_info(config.path, revision=config.revision).sha
    return config.model_copy(update={"revision": commit})


@contextmanager
def hub_errors(config: SourceConfig) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise UserError(
            f"{config.path} is not a local file or folder, and cannot be loaded as a hub dataset: "
            f"{str(error).rstrip('.')}."
        ) from None


def _split(loaded: DatasetDict | IterableDatasetDict, config: SourceConfig) -> str:
    names = [str(name) for name in loaded]
    listed = ", ".join(names)
    if config.split is not None and config.split not in names:
        raise UserError(f"{config.path} has no split {config.split}; it has {listed}.")
    match config.split or ("train" if "train" in names else None), names:
        case str(name), _:
            return name
        case None, [only]:
            return only
    raise UserError(f"{config.path} has the splits {listed}; choose one with split.")


def _rows(dataset: Dataset, name: str, folder: Path) -> TableRows:
    stamps = tuple(stamp(Path(file["filename"])) for file in dataset.cache_files)
    return TableRows(name, folder, dataset.with_format("arrow"), stamps)


@contextmanager
def _no_bars() -> Iterator[None]:
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
