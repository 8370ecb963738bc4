"""Writes the rows that are kept and those that are left out, the verdicts, and the entries of data.train for the rows
that are kept."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from qwenvl_train.config.entries import entry_names
from qwenvl_train.curation.duplicates import Alike
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.data.forked import forked_map
from qwenvl_train.data.samples import Samples
from qwenvl_train.files import replacing
from qwenvl_train.reporting.folder import plain, write_text_atomic
from qwenvl_train.verbs.filter.folder import FilterFolder
from qwenvl_train.verbs.filter.judged import DUPLICATES, EVIDENCE, PICTURE_SIGNATURE, TEXT_SIGNATURE, VALUE, columns_of
from qwenvl_train.verbs.filter.outcome import Outcome

KEPT, DROPPED, VERDICTS, DATA = "kept.jsonl", "dropped.jsonl", "verdicts.parquet", "data.yaml"


def write_rows(
    samples: Samples, outcome: Outcome, folder: FilterFolder, chunks: Sequence[range], processes: int, killed: str
) -> Iterator[int]:
    """Write the rows that are kept, in a file for each entry of data.train, and those that are left out. Yield the
    number of rows that are written so far. `killed` is the error if a process is killed."""

    def lines(rows: range) -> list[bytes]:
        return [samples.moved(row) if outcome.kept[row] else _raw(samples, row) for row in rows]

    with ExitStack() as stack:
        files = [stack.enter_context(replacing(folder.path / name)) for name in kept_names(samples)]
        dropped = stack.enter_context(replacing(folder.path / DROPPED))
        written = forked_map(lines, chunks, processes, killed)
        for rows, found, table in zip(chunks, written, folder.parts(), strict=True):
            for place, (row, line) in enumerate(zip(rows, found, strict=True)):
                if outcome.kept[row]:
                    files[samples.entry_of(row)].write(line + b"\n")
                else:
                    dropped.write(_dropped_line(samples, row, line, table, place, outcome))
            yield rows.stop


def kept_names(samples: Samples) -> list[str]:
    """Return the names of the files of kept rows, one for each entry of data.train."""
    if len(samples.entries) == 1:
        return [KEPT]
    names = entry_names([entry.config for entry in samples.entries])
    return [f"kept-{number}-{_file_name(name)}.jsonl" for number, name in enumerate(names, start=1)]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", Path(name).stem)[:40].strip("-") or "rows"


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
        {"rule": rule, "value": verdict.value, "evidence": verdict.evidence}
        for rule, verdict in verdicts_of(samples, row, table, place, outcome).items()
        if outcome.drops[outcome.rules.index(rule)]
    ]
    head = json.dumps(plain(about | {"dropped_by": because}), ensure_ascii=False).encode(errors="replace")
    return head[:-1] + b', "row": ' + line + b"}\n"


def verdicts_of(samples: Samples, row: int, table: pa.Table, place: int, outcome: Outcome) -> dict[str, Verdict]:
    """Return the verdicts of the rules that a row falls to. `table` has the row at `place`."""
    found = {}
    for rule in outcome.rules_of(row):
        if rule == DUPLICATES:
            found[rule] = verdict_of_alike(samples, outcome.alike[row])
        else:
            value, evidence = (table[f"{rule}.{part}"][place].as_py() for part in (VALUE, EVIDENCE))
            found[rule] = Verdict(True, value, evidence or "")
    return found


def verdict_of_alike(samples: Samples, alike: Alike) -> Verdict:
    source, line = samples.origin(alike.first)
    pictures = f", pictures differ in {alike.bits} of 64 bits" if samples[alike.first].media else ""
    evidence = f"{alike.similarity:.0%} of its word sequences are those of {source}:{line}{pictures}"
    return Verdict(True, alike.similarity, evidence)


def write_verdicts(samples: Samples, outcome: Outcome, folder: FilterFolder) -> None:
    """Write one table with the verdicts of all rules about all rows."""
    path, first, writer = folder.path / VERDICTS, 0, None
    with replacing(path) as file:
        for table in folder.parts():
            rows = range(first, first + len(table))
            whole = _with_outcome(samples, outcome, table, rows)
            writer = writer or pq.ParquetWriter(file, whole.schema, compression="zstd")
            writer.write_table(whole)
            first = rows.stop
        if writer:
            writer.close()


def _with_outcome(samples: Samples, outcome: Outcome, table: pa.Table, rows: range) -> pa.Table:
    origins = [samples.origin(row) for row in rows]
    columns = {
        "source": pa.array([source for source, _ in origins], pa.string()),
        "line": pa.array([line for _, line in origins], pa.int64()),
        "id": table["id"],
        "kept": pa.array(outcome.kept[rows.start : rows.stop]),
    }
    kept = [name for name in table.column_names if name not in ("id", TEXT_SIGNATURE, PICTURE_SIGNATURE)]
    columns |= {name: table[name] for name in kept}
    if DUPLICATES in outcome.rules:
        alike = [outcome.alike.get(row) for row in rows]
        found = [verdict_of_alike(samples, one) if one else Verdict(False) for one in alike]
        columns |= columns_of(found, DUPLICATES)
    return pa.table(columns)


def write_entries(samples: Samples, outcome: Outcome, folder: FilterFolder) -> None:
    """Write data.yaml, which names the files of kept rows as entries of data.train."""
    entries = []
    for number, (name, entry) in enumerate(zip(kept_names(samples), samples.entries, strict=True)):
        if not outcome.kept[entry.start : entry.stop].any():
            continue
        config = entry.config
        found: dict[str, Any] = {"path": name, "format": samples.format_of(number) or "auto"}
        for key in ("columns", "weight", "repeats", "metric"):
            if value := getattr(config, key):
                found[key] = list(value) if isinstance(value, tuple) else value
        entries.append(found)
    if len(entries) == 1:
        entries[0].pop("weight", None)
    text = yaml.safe_dump({"train": entries}, sort_keys=False, allow_unicode=True)
    write_text_atomic(folder.path / DATA, "# The rows that were kept: data=<this file> trains on them.\n" + text)
