"""`filter` with two processes, which share the rows that a model judges, writes the files of one process."""

import os
import subprocess

import pyarrow.parquet as pq
import pytest

from qwenvl_train.cli import main
from qwenvl_train.verbs.filter import filtering
from tests.distributed.hosts import BIN, ROOT
from tests.distributed.started_again import free_port
from tests.verbs.eval.test_eval import asked
from tests.verbs.filter.rows import AGAIN

pytestmark = pytest.mark.distributed


def test_two_processes_write_the_files_of_one(write_rows, tmp_path, monkeypatch):
    told = [asked(number, "bin D4", id=f"told {number}") for number in range(4)]
    for row in told:
        row["conversations"][0]["value"] = "<image>\nPlease say bin D4."
    seen = [asked(number, "an orange square", id=f"seen {number}") for number in range(3)]
    path = write_rows([*told, *seen, asked(9, AGAIN, id="again")])
    settings = [
        "filter", "+filter=light", f"data.train={path}", "model=tiny",
        "filter.needless_image.use=drop", f"output_dir={tmp_path}", "data.workers=0",
    ]  # fmt: skip
    monkeypatch.setattr(filtering, "_CHUNK", 2)
    assert main([*settings, f"filter.to={tmp_path / 'one'}", f"data.cache={tmp_path / 'cache of one'}"]) == 0
    done = subprocess.run(
        [str(BIN / "torchrun"), f"--master_port={free_port()}", "--nproc_per_node", "2", "-m",
         "tests.distributed.small_chunks", *settings, f"filter.to={tmp_path / 'two'}"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout.count("rows kept") == 1
    one, two = tmp_path / "one", tmp_path / "two"
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    for name in ("kept.jsonl", "dropped.jsonl", "data.yaml"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    mine, theirs = (pq.read_table(folder / "verdicts.parquet").to_pydict() for folder in (one, two))
    assert mine.keys() == theirs.keys()
    for name, column in mine.items():
        # The number of threads changes the last digits of what the model says.
        same = [
            value if value is None or not isinstance(value, float) else pytest.approx(value, abs=1e-4)
            for value in column
        ]
        assert theirs[name] == same, name
