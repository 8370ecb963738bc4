"""Sequential reading gives the same rows as reading by index, from any position, and reads no more than requested."""

import io
import json
from functools import partial
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.sources import flows, spans, table
from qwenvl_train.data.sources.flows import Flow, Hub, Lines, Parquet, RawRow
from qwenvl_train.data.sources.opening import open_flows, open_sources
from qwenvl_train.errors import UserError

ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}


def opened(path: object, **given: str) -> list[Flow]:
    return open_flows(SourceConfig(path=str(path), **given), "data.train", Path(path).parent / "cache")


def content(rows: list[RawRow]) -> list[tuple[int, object]]:
    return [(row.line, row.read()) for row in rows]


def assert_goes_on_anywhere(flow: Flow) -> list[tuple[int, object]]:
    """Return the rows, after checking that reading from each of them continues with the same rows."""
    rows = list(flow.rows(None))
    expected = content(rows)
    for number, row in enumerate(rows, start=1):
        place = json.loads(json.dumps(row.after))
        assert content(list(flow.rows(place))) == expected[number:]
    return expected


def by_index(path: object, cache: Path) -> list[tuple[int, object]]:
    sources = open_sources(SourceConfig(path=str(path)), "data.train", cache)
    return [(source.line(index), source.row(index)) for source in sources for index in range(len(source))]


def picture(color: str) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (30, 20), color).save(buffer, "PNG")
    return buffer.getvalue()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["1", '{"a": "é"}', "[]", '"x"', "", " ", "\t\x0c", '"' + "y" * 40 + '"']), max_size=8),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([1, 2, 7, 2**20]),
)
def test_lines_are_those_of_the_index(tmp_path_factory, lines, marked, closed, newline, piece):
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * marked + (newline.join(lines) + newline * closed).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_CHUNK", piece)
        found = assert_goes_on_anywhere(Lines(path))
    assert found == [(number, json.loads(line)) for number, line in enumerate(lines, start=1) if line.strip()]


def test_a_broken_line_does_not_end_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("qwenvl_train.data.sources.text.LARGEST_ROW", 50)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{\n1\n\xff\n"' + b"x" * 60 + b'"\n2')
    first, second, third, fourth, fifth = Lines(path).rows(None)
    assert (second.read(), fifth.read(), fifth.line) == (1, 2, 5)
    for row, reason in ((first, ":1 is not valid JSON"), (third, ":3 is not UTF-8"), (fourth, ":4 is 0 MiB large")):
        with pytest.raises(UserError, match=reason):
            row.read()


def test_a_file_is_read_no_further_than_asked(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(b"1\n" * 10)
        file.truncate(2**40)  # a terabyte, of which nothing is stored
    rows = Lines(path).rows(None)
    assert [next(rows).read() for _ in range(10)] == [1] * 10


@pytest.mark.parametrize("name", ["rows.json", "rows.parquet", "folder", "splits"])
def test_other_files_are_read_as_by_index(tmp_path, name, monkeypatch):
    monkeypatch.setattr(flows, "_TABLE", 4)
    path = tmp_path / name
    rows = [ROW | {"id": str(index), "image": picture("red") if index % 3 else None} for index in range(11)]
    match name:
        case "rows.json":
            path.write_text(json.dumps([ROW | {"id": index} for index in range(11)]))
        case "rows.parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=5)
        case "folder":
            Dataset.from_list(rows).save_to_disk(path)
        case "splits":
            DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(path)
    (flow,) = opened(path)
    assert assert_goes_on_anywhere(flow) == by_index(path, tmp_path / "cache")
    assert flow.size() > 0
    assert flow.folder == (path if path.is_dir() else tmp_path)


def test_pictures_and_mixed_values_in_parquet_stay_as_they_are(tmp_path):
    path = tmp_path / "rows.parquet"
    media = datasets.Features({"images": datasets.List(datasets.Image()), "meta": datasets.Json()})
    encoded = [{"bytes": picture("blue"), "path": None}]
    rows = {"images": [encoded, []], "meta": [{"a": [1, None]}, "text"]}
    Dataset.from_dict(rows, features=media).to_parquet(path)
    assert content(list(Parquet(path).rows(None))) == by_index(path, tmp_path / "cache")
    assert next(Parquet(path).rows(None)).read() == {"images": [{"bytes": picture("blue")}], "meta": {"a": [1, None]}}


def test_row_groups_before_the_place_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": range(40)}), path, row_group_size=10)
    asked = []
    iter_batches = pyarrow.parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile, "iter_batches", lambda *args: asked.append(args[2]) or iter_batches(*args)
    )
    assert next(Parquet(path).rows({"row": 25})).read() == {"a": 25}
    assert list(asked[0]) == [2, 3]
    assert list(Parquet(path).rows({"row": 40})) == []


def test_a_parquet_file_that_breaks_off_is_named(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": range(40)}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"rows\.parquet cannot be read as parquet"):
        list(Parquet(path).rows(None))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub id whose two files are local. Apart from locating the files, the library's own code runs."""
    files = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    rows = [ROW | {"id": str(index), "image": {"bytes": picture("red"), "path": "a"}} for index in range(23)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:14]), files[0], row_group_size=5)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[14:]), files[1], row_group_size=5)
    load, asked = datasets.load_dataset, []

    def load_here(path, *, name, split, revision, streaming):
        asked.append((path, name, revision, streaming))
        return load("parquet", data_files={"train": list(map(str, files))}, split=split, streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", load_here)
    return asked


@pytest.mark.parametrize("split", [None, "train"])
def test_a_hub_id_is_read_from_any_place_on(hub, split, monkeypatch):
    monkeypatch.setattr(flows, "_TABLE", 4)
    flow = Hub(SourceConfig(path="org/name", split=split, revision="0" * 40))
    found = assert_goes_on_anywhere(flow)
    assert [(line, row["id"]) for line, row in found] == [(index + 1, str(index)) for index in range(23)]
    assert found[0][1]["image"] == {"bytes": picture("red"), "path": "a"}
    assert set(hub) == {("org/name", None, "0" * 40, True)}
    assert flow.name == ("org/name/train" if split else "org/name")


def test_one_commit_of_a_hub_id_is_settled_on(monkeypatch):
    class Api:
        def dataset_info(self, path, revision):
            assert (path, revision) == ("org/name", "main")
            return type("Info", (), {"sha": "a" * 40})

    monkeypatch.setattr(table, "HfApi", Api)
    (flow,) = opened("org/name", revision="main")
    assert flow.config.revision == "a" * 40
    monkeypatch.setattr(table, "HfApi", None)
    (flow,) = opened("org/name", revision="b" * 40)
    assert flow.config.revision == "b" * 40


def test_a_hub_id_without_network_is_named():
    with pytest.raises(
        UserError, match=r"data\.train: org/name is not a local file or folder, and cannot be loaded as a hub dataset"
    ):
        opened("org/name")
    with pytest.raises(UserError, match=r"org/name is not a local file or folder"):
        next(Hub(SourceConfig(path="org/name", revision="0" * 40)).rows(None))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("gone.jsonl", "there is no file or folder"),
        ("", "the path of an entry is empty"),
        ("https://a.b/c.jsonl", "is an address"),
        ("rows.txt", "ends in '.txt'"),
        ("rows.jsonl.gz", "is compressed"),
        ("*.parquet", "no .jsonl, .json, .parquet, .csv or .tsv file matches"),
    ],
)
def test_what_is_not_read_is_named_as_always(tmp_path, monkeypatch, path, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.txt").write_text("a")
    (tmp_path / "rows.jsonl.gz").write_bytes(b"a")
    for open_it in (opened, partial(by_index, cache=tmp_path / "cache")):
        with pytest.raises(UserError, match=f"data.train: .*{reason}"):
            open_it(path)


def test_a_folder_is_its_files_in_order(tmp_path):
    for name in ("b.jsonl", "a.parquet", "c.json"):
        (tmp_path / name).write_text("[]")
    assert [Path(flow.name).name for flow in opened(tmp_path)] == ["a.parquet", "b.jsonl", "c.json"]
