"""The raw rows of .csv and .tsv files, read with pyarrow. Every value is text, and an empty field counts as absent."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
from datasets import Dataset
from pyarrow import csv

from qwenvl_train.data.cache_files import replacing_index
from qwenvl_train.data.sources.source import LARGEST_ROW, stamp
from qwenvl_train.data.sources.table import TableRows
from qwenvl_train.errors import UserError

_VERSION = 1
"""Must be increased when the same file may yield other rows than before."""
_BLOCK = LARGEST_ROW
"""The number of bytes that are parsed at a time. A row has to fit into it."""


def open_csv(path: Path, cache: Path, address: str | None = None) -> TableRows:
    """Open a .csv or .tsv file. It is copied to the cache once, as arrow, so that a row can be read by its number."""
    name, folder = address or str(path), address.rpartition("/")[0] if address else path.absolute().parent
    mark = stamp(path)
    key = hashlib.sha256(f"{_VERSION} {path.suffix.lower()} {mark}".encode()).hexdigest()[:32]
    copy = cache / "tables" / f"{key}.arrow"
    if not copy.exists():
        with (
            opened_csv(path, name) as reader,
            replacing_index(copy) as file,
            pyarrow.ipc.new_stream(file, reader.schema) as writer,
        ):
            for batch in reader:
                writer.write_batch(batch)
    dataset = Dataset.from_file(str(copy))
    if len(dataset) == 0:
        raise UserError(f"{name} has no rows below its header.")
    return TableRows(name, folder, dataset.with_format("arrow"), (mark,))


@contextmanager
def opened_csv(path: Path, name: str) -> Iterator[csv.CSVStreamingReader]:
    """Yield a reader of the batches of a .csv or .tsv file. Errors in the file that occur within the block are raised
    as UserError."""
    uneven: list[csv.InvalidRow] = []

    def refuse(row: csv.InvalidRow) -> str:
        uneven.append(row)
        return "error"

    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse)
    # With threads, the rows that are refused have no number.
    read = csv.ReadOptions(block_size=_BLOCK, use_threads=False)
    try:
        columns = csv.open_csv(path, read, parse).schema.names
        _check_header(columns, name)
        texts = csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pyarrow.string()), null_values=[""], strings_can_be_null=True
        )
        with csv.open_csv(path, read, parse, texts) as reader:
            yield reader
    except pyarrow.ArrowInvalid as error:
        if uneven:
            row = uneven[0]
            raise UserError(
                f"{name}:{row.number - 1} has {row.actual_columns} fields, but the header has {row.expected_columns}; "
                "put a field in quotes if it contains the separator, a quote or a line break."
            ) from None
        raise UserError(f"{name} cannot be read: {error} (the header is row 1).") from None


def _check_header(columns: list[str], name: str) -> None:
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"{name} has two columns {column!r}; rename one of them.")
    if len(columns) == 1 and ";" in columns[0]:
        raise UserError(f"{name} separates its columns by ';'; save it with commas, or with tabs as .tsv.")
