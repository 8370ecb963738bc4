"""Open the sources of an entry of data.train or data.eval."""

import os
from functools import partial
from pathlib import Path

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.section import AllowRemote
from qwenvl_train.data.remote import fetched_data_file
from qwenvl_train.data.sources.csv_tables import open_csv
from qwenvl_train.data.sources.finding import ending, find, find_at_address, naming
from qwenvl_train.data.sources.flows import Csv, Flow, Hub, IndexedFlow, Lines, Parquet
from qwenvl_train.data.sources.source import Source
from qwenvl_train.data.sources.table import at_commit, open_arrow_folder, open_hub, open_parquet
from qwenvl_train.data.sources.text import index_lines, index_list
from qwenvl_train.errors import UserError


def open_sources(config: SourceConfig, key: str, cache: Path, allow_remote: AllowRemote = False) -> list[Source]:
    """Open the sources of an entry for access by row number. `key` is the setting that error messages name. The cache
    holds tables converted to arrow, and the positions of the rows of large text files."""
    with naming(config, key):
        sources = _open(config, cache, allow_remote)
        for source in sources:
            _check_columns(source, config)
    for source in sources:
        if len(source) == 0:
            raise UserError(f"{key}: {source.name} has no rows.")
    return sources


def open_flows(config: SourceConfig, key: str, cache: Path, allow_remote: AllowRemote = False) -> list[Flow]:
    """Open the sources of an entry for reading from front to back. A hub id is fixed to one commit."""
    with naming(config, key):
        flows = _flows(config, cache, allow_remote)
        for flow in flows:
            _check_columns(flow, config)
    return flows


def _open(config: SourceConfig, cache: Path, allow_remote: AllowRemote) -> list[Source]:
    match find(config, allow_remote):
        case "arrow folder":
            return [open_arrow_folder(Path(os.path.expanduser(config.path)), config)]
        case "hub id":
            return [open_hub(config)]
        case "address":
            return [_open_file(fetched_data_file(name, cache), cache, name) for name in find_at_address(config)]
        case files:
            return [_open_file(file, cache) for file in files]


def _flows(config: SourceConfig, cache: Path, allow_remote: AllowRemote) -> list[Flow]:
    match find(config, allow_remote):
        case "arrow folder":
            folder = Path(os.path.expanduser(config.path))
            open_again = partial(open_arrow_folder, folder, config)
            return [IndexedFlow(open_again().name, open_again, folder)]
        case "hub id":
            return [Hub(at_commit(config))]
        case "address":
            return [_flow(fetched_data_file(name, cache), cache, name) for name in find_at_address(config)]
        case files:
            return [_flow(file, cache) for file in files]


def _open_file(path: Path, cache: Path, address: str | None = None) -> Source:
    match ending(path):
        case ".jsonl":
            return index_lines(path, cache, address)
        case ".json":
            return index_list(path, cache, address)
        case ".parquet":
            return open_parquet(path, cache, address)
        case ".csv" | ".tsv":
            return open_csv(path, cache, address)


def _flow(path: Path, cache: Path, address: str | None = None) -> Flow:
    match ending(path):
        case ".jsonl":
            return Lines(path, address)
        case ".json":
            return IndexedFlow(address or str(path), partial(index_list, path, cache, address), path, address)
        case ".parquet":
            return Parquet(path, address)
        case ".csv" | ".tsv":
            return Csv(path, address)


def _check_columns(source: Source | Flow, config: SourceConfig) -> None:
    """Raise UserError when the source does not have every column that `columns` of its entry names."""
    if config.columns is None:
        return
    found = source.columns()
    for name, column in config.columns.items():
        if column not in found:
            raise UserError(
                f"{source.name} has no column {column!r}, which columns of its entry gives for {name}; it has the "
                f"columns {', '.join(found)}."
            )
