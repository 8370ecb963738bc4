"""A folder of files to stream."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet

from tests.conftest import conversation


def write_stream(folder: Path, pictures: list[Path]) -> Path:
    """Writes 13 conversations as JSON lines, and 4 rows whose pictures are in the rows themselves as parquet."""
    folder.mkdir()
    samples = [
        conversation(
            ("user", [pictures[index % 4], "What? " * (index % 5 + 1)] if index % 3 else ["Who? " * (index + 1)]),
            ("assistant", ["Red. " * (index % 7 + 1)]),
            id=str(index),
        )
        for index in range(13)
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    inside = [
        {"query": "<image>What?", "response": "Red. " * (index + 1), "images": [{"bytes": path.read_bytes()}]}
        for index, path in enumerate(pictures)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(inside), folder / "b.parquet")
    return folder
