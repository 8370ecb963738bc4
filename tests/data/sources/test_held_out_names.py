"""Files of data.train that are named as held-out rows usually are."""

import pytest

from qwenvl_train.data.samples import Samples
from qwenvl_train.data.sources.files import look_held_out
from tests.conftest import conversation
from tests.settings import run_config


@pytest.mark.parametrize(
    ("path", "name", "found"),
    [
        ("rows", "rows/a_val.jsonl", "a_val.jsonl"),
        ("./rows/", "rows/test-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
        ("rows", "rows/validation/1.json", "validation/1.json"),
        ("rows", "rows/Eval.jsonl", "Eval.jsonl"),
        ("rows/*.jsonl", "rows/val2017.jsonl", "val2017.jsonl"),
        ("test*.jsonl", "test_a.jsonl", "test_a.jsonl"),
        ("s3://bucket/rows", "s3://bucket/rows/held-out.jsonl", "held-out.jsonl"),
        ("test/rows", "test/rows/train.jsonl", None),
        ("rows", "rows/latest.jsonl", None),
        ("rows", "rows/values.jsonl", None),
        ("rows/a_val.jsonl", "rows/a_val.jsonl", None),
    ],
)
def test_only_names_of_files_that_the_user_has_not_named_count(path, name, found):
    assert look_held_out(path, [name]) == ([found] if found else [])


def test_they_are_named_and_still_read(write_rows, tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("a", "a_val", "b_test"):
        write_rows([conversation(("user", ["Who?"]), ("assistant", ["Me."]))], f"rows/{name}.jsonl")
    entries = run_config(**{"data.train": str(tmp_path / "rows")}).data.train
    assert Samples(entries, "data.train", False, tmp_path).describe()[1:] == [
        f"{tmp_path}/rows: trains also on a_val.jsonl, b_test.jsonl; if these are held-out rows, name them in "
        "data.eval, and only the others here"
    ]
    held_out = Samples(entries, "data.eval", False, tmp_path)
    assert (len(held_out), len(held_out.describe())) == (3, 1)
