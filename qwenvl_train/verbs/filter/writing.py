"""Writes the rows that are kept and those that are left out, the verdicts, and the entries of data.train for the rows
that are kept."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.data.forked import forked_map
from qwenvl_train.data.samples import Samples
from qwenvl_train.files import replacing
from qwenvl_train.reporting.folder import plain, write_text_atomic
from qwenvl_train.verbs.filter.folder import FilterFolder
from qwenvl_train.verbs.filter.judged import (
    EVIDENCE,
    HAS_MEDIA,
    PICTURE_SIGNATURE,
    REST_SIGNATURE,
    TEXT_SIGNATURE,
    VALUE,
    columns_of,
)
from qwenvl_train.verbs.filter.kept_files import KeptFiles
from qwenvl_train.verbs.filter.outcome import Outcome

_OF_FILTER = ("id", HAS_MEDIA, TEXT_SIGNATURE, PICTURE_SIGNATURE, REST_SIGNATURE)
"""The columns of the judgements that are not among the verdicts as they are."""
_IN_GROUP = 16
"""The number of tables of judgements that are a row group of the verdicts. The writer keeps a description of each group
in memory."""
DROPPED, VERDICTS, DATA = "dropped.jsonl", "verdicts.parquet", "data.yaml"


def write_rows(
    samples: Samples, outcome: Outcome, folder: FilterFolder, kept: KeptFiles, chunks: Sequence[range], processes: int
) -> Iterator[int]:
    """Write the rows that are kept and those that are left out. Yield the number of rows that are written so far."""
    killed = (
        "A worker that writes rows was killed, usually because memory ran out; lower data.workers. The same command "
        "goes on where it was."
    )

    def lines(rows_and_media: tuple[range, list[bool]]) -> list[bytes]:
        return [
            _kept(samples, row, has_media) if outcome.kept[row] else _raw(samples, row)
            for row, has_media in zip(*rows_and_media, strict=True)
        ]

    with ExitStack() as stack:
        files = {one.name: stack.enter_context(replacing(folder.path / one.name)) for one in kept.files.values()}
        dropped = stack.enter_context(replacing(folder.path / DROPPED))
        has_media = (table[HAS_MEDIA].to_pylist() for table in folder.by_rules.tables([HAS_MEDIA]))
        written = forked_map(lines, zip(chunks, has_media, strict=True), processes, killed)
        for rows, found, table in zip(chunks, written, folder.tables(outcome.by_model), strict=True):
            for place, (row, line) in enumerate(zip(rows, found, strict=True)):
                if outcome.kept[row]:
                    files[kept.of(row).name].write(line + b"\n")
                else:
                    dropped.write(_dropped_line(samples, row, line, table, place, outcome))
            yield rows.stop


def _kept(samples: Samples, row: int, has_media: bool) -> bytes:
    """Return the line of a row that stays. Without media, the bytes of a row are right in any folder."""
    line = None if has_media else samples.line_of(row)
    return samples.moved(row) if line is None else line


def _raw(samples: Samples, row: int) -> bytes:
    return json.dumps(plain_row(samples.raw(row)), ensure_ascii=False).encode(errors="replace")


def plain_row(value: Any) -> Any:
    """Return a raw row as JSON can hold it. Media that are stored in it are only described, since dropped.jsonl is for
    readers."""
    match value:
        case dict():
            return {str(key): plain_row(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain_row(inner) for inner in value]
        case bytes():
            return f"<{len(value)} bytes>"
        case None | bool() | int() | float() | str():
            return plain(value)
        case _:
            return str(value)


def _dropped_line(samples: Samples, row: int, line: bytes, table: pa.Table, place: int, outcome: Outcome) -> bytes:
    source, number = samples.origin(row)
    about = {"source": source, "line": number, "id": table["id"][place].as_py()}
    because = [
        {"rule": rule, "value": _rounded(verdict.value), "evidence": verdict.evidence}
        for rule, verdict in verdicts_of(row, table, place, outcome).items()
        if outcome.drops[outcome.rules.index(rule)]
    ]
    head = json.dumps(plain(about | {"dropped_by": because}), ensure_ascii=False).encode(errors="replace")
    return head[:-1] + b', "row": ' + line + b"}\n"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def verdicts_of(row: int, table: pa.Table, place: int, outcome: Outcome) -> dict[str, Verdict]:
    """Return the verdicts of the rules that a row falls to. `table` has the row at `place`."""
    found = {}
    for rule in outcome.rules_of(row):
        late = outcome.late.get(rule)
        if late is not None and (verdict := late.of(row)) is not None:
            found[rule] = verdict
        else:
            value, evidence = (table[f"{rule}.{part}"][place].as_py() for part in (VALUE, EVIDENCE))
            found[rule] = Verdict(True, value, evidence or "")
    return found


def write_verdicts(samples: Samples, outcome: Outcome, folder: FilterFolder) -> None:
    """Write one table with the verdicts of all rules about all rows."""
    tables, writer = _verdicts(samples, outcome, folder), None
    with replacing(folder.path / VERDICTS) as file:
        while some := list(islice(tables, _IN_GROUP)):
            whole = pa.concat_tables(some)
            writer = writer or pq.ParquetWriter(file, whole.schema, compression="zstd")
            writer.write_table(whole)
        if writer:
            writer.close()


def _verdicts(samples: Samples, outcome: Outcome, folder: FilterFolder) -> Iterator[pa.Table]:
    first = 0
    for table in folder.tables(outcome.by_model):
        rows = range(first, first + len(table))
        yield _with_outcome(samples, outcome, table, rows)
        first = rows.stop


def _with_outcome(samples: Samples, outcome: Outcome, table: pa.Table, rows: range) -> pa.Table:
    origins = [samples.origin(row) for row in rows]
    columns = {
        "source": pa.array([source for source, _ in origins], pa.string()),
        "line": pa.array([line for _, line in origins], pa.int64()),
        "id": table["id"],
        "kept": pa.array(outcome.kept[rows.start : rows.stop]),
    }
    kept = [name for name in table.column_names if name not in _OF_FILTER]
    columns |= {name: table[name] for name in kept}
    stays = outcome.kept[rows.start : rows.stop].tolist()
    for rule, late in outcome.late.items():
        if rule in table.column_names:
            others = [_of_table(table, rule, place) for place in range(len(rows))]
        else:  # it compares only rows that no other rule leaves out
            others = [Verdict(False) if kept else None for kept in stays]
        found = [late.of(row) or other for row, other in zip(rows, others, strict=True)]
        columns |= columns_of(found, rule)
    return pa.table(columns)


def _of_table(table: pa.Table, rule: str, place: int) -> Verdict | None:
    falls, value, evidence = (table[name][place].as_py() for name in (rule, f"{rule}.{VALUE}", f"{rule}.{EVIDENCE}"))
    return None if falls is None else Verdict(falls, value, evidence or "")


def write_entries(samples: Samples, kept: KeptFiles, folder: FilterFolder) -> None:
    """Write data.yaml, which names the files of kept rows as entries of data.train."""
    entries = []
    for one in kept.files.values():
        config = samples.entries[one.kind.entry].config
        found: dict[str, Any] = {"path": one.name, "format": one.kind.format}
        if config.columns:
            found["columns"] = dict(config.columns)
        if len(kept.files) > 1 and one.weight is not None:
            found["weight"] = float(f"{one.weight:.6g}")
        if config.repeats:
            found["repeats"] = config.repeats
        if config.metric:
            found["metric"] = list(config.metric)
        entries.append(found)
    text = yaml.safe_dump({"train": entries}, sort_keys=False, allow_unicode=True)
    write_text_atomic(folder.path / DATA, "# The rows that were kept: data=<this file> trains on them.\n" + text)
