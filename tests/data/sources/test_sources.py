"""Reading raw rows from a path: which rows are read, byte for byte, and which errors are raised."""

import io
import json
import multiprocessing
import os
import pickle
import random
import shutil
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict, List
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.sources import spans, table, text
from qwenvl_train.data.sources.opening import open_sources
from qwenvl_train.data.sources.source import Source
from qwenvl_train.errors import UserError

ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}


@pytest.fixture
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def opened(cache):
    return partial(_opened, cache)


def _opened(cache: Path, path: object, **given: str) -> list[Source]:
    return open_sources(SourceConfig(path=str(path), **given), "data.train", cache)


def rows(source: Source) -> list[object]:
    return [source.row(index) for index in range(len(source))]


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def jpeg(color: str) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (30, 20), color).save(buffer, "JPEG")
    return buffer.getvalue()


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text('"\\[]{}, \né\N{GRINNING FACE}')
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(values, min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.sampled_from([20, 21, 23, 2**18]),
    st.data(),
)
def test_any_list_is_read_row_by_row(tmp_path_factory, expected, ascii, marked, indent, chunk, data):
    around = data.draw(st.text(" \t\r\n", max_size=3))
    path = tmp_path_factory.mktemp("any") / "rows.json"
    written = json.dumps(expected, ensure_ascii=ascii, indent=indent)
    path.write_bytes(b"\xef\xbb\xbf" * marked + (around + written + around).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_CHUNK", chunk)
        source = text.index_list(path, path.parent / "cache")
    assert rows(source) == expected
    assert [source.line(index) for index in range(len(source))] == list(range(1, len(expected) + 1))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(values | st.sampled_from([" ", "\t", "", "\x0c "]).map(str.encode), max_size=8),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([1, 2, 7, 2**18]),
)
def test_any_lines_are_read_one_by_one(tmp_path_factory, content, ascii, marked, closed, newline, chunk):
    """Bytes stand for lines of white space, which are not rows but count as lines."""
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    written = [line.decode() if isinstance(line, bytes) else json.dumps(line, ensure_ascii=ascii) for line in content]
    path.write_bytes(b"\xef\xbb\xbf" * marked + (newline.join(written) + newline * closed).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_CHUNK", chunk)
        source = text.index_lines(path, path.parent / "cache")
    expected = {number: line for number, line in enumerate(content, start=1) if not isinstance(line, bytes)}
    assert [source.line(index) for index in range(len(source))] == list(expected)
    assert rows(source) == list(expected.values())


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_rows_cost_numbers_only(opened, tmp_path, name):
    many = [{"id": index, "text": "words " * 20} for index in range(5000)]
    path = tmp_path / name
    path.write_text(lines(*many) if name == "rows.jsonl" else json.dumps(many))
    (source,) = opened(path)
    assert source.row(4999) == many[4999]
    assert len(pickle.dumps(source)) < 24 * 5000 + 2000


BROKEN_ROWS = {
    "cut": (
        b'{"id": 1, "mess',
        "2 is not valid JSON: Unterminated string starting at character 11 of the row; in a .jsonl",
    ),
    "pretty-printed": (b'{\n"id": 1\n}', "2 is not valid JSON: Expecting property name"),
    "not utf-8": (b'{"id": "\xff"}', r"2 is not UTF-8 text \(invalid start byte at byte 9\); convert it"),
    "utf-16": ('{"id": 1}'.encode("utf-16"), "2 is not UTF-8 text"),
    "half a character": (b'{"id": "\\ud83d"}', r"2 contains '\\ud83d', half of a character"),
    "key twice": (b'{"a": {"id": 1, "x": 2, "id": 1}}', "2 cannot be read: the key 'id' occurs twice in one object"),
    "too deep": (b"[" * 100_000, "2 cannot be read: maximum recursion depth"),
    "endless number": (b"1" * 5000, "2 cannot be read: Exceeds the limit"),
}


@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_a_broken_line_is_named_and_harms_no_other(opened, tmp_path, case):
    content, words = BROKEN_ROWS[case]
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id": 0}\n' + content + b'\n{"id": "\\ud83d\\ude00"}\n')
    (source,) = opened(path)
    assert source.row(0) == {"id": 0}
    assert source.row(len(source) - 1) == {"id": "\N{GRINNING FACE}"}
    with pytest.raises(UserError, match=r"x\.jsonl:" + words):
        source.row(1)


def test_a_huge_row_is_refused_unread(opened, tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(b'{"id": 0}\n{"image": "')
        file.seek(100 * 2**20)
        file.write(b'"}\n{"id": 2}\n')
    (source,) = opened(path)
    assert (source.row(0), source.row(2)) == ({"id": 0}, {"id": 2})
    monkeypatch.setattr(text, "_parse", None)
    with pytest.raises(
        UserError, match=r"x\.jsonl:2 is 100 MiB large, but a row may have 64; store its media in files"
    ):
        source.row(1)


def test_a_file_that_changes_in_use_is_told(opened, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(lines({"id": 1}, {"id": 2}))
    (source,) = opened(path)
    path.write_text(lines({"id": "longer"}, {"id": 2}))
    with pytest.raises(UserError, match=r"x\.jsonl was changed while it was in use"):
        source.row(1)
    path.unlink()
    with pytest.raises(UserError, match=r"x\.jsonl cannot be read: No such file"):
        source.row(0)


WHOLE = json.dumps([ROW, ROW]).encode()
FILES = {
    "missing": ("gone.jsonl", None, r"there is no file or folder .*gone\.jsonl; relative paths start at"),
    "no rows": ("x.jsonl", b"\n \r\n", "has no rows"),
    "empty lines file": ("x.jsonl", b"", "has no rows"),
    "empty list file": ("x.json", b"", "has no rows"),
    "list without rows": ("x.json", b" [ ] ", "has no rows"),
    "object instead of list": ("x.json", b'\n{"a": []}', "is not a list of rows; .* rename it to .jsonl"),
    "list cut in a row": ("x.json", WHOLE[:-6], r"x\.json is not valid JSON: Unterminated string .* of the file"),
    "list cut after a row": ("x.json", WHOLE[:-1], f"x.json is not valid JSON: Expecting .* at byte {len(WHOLE)} "),
    "list cut after a comma": ("x.json", b"[1,", "x.json is not valid JSON: Expecting value at byte 4 "),
    "list with a mark, cut": ("x.json", b"\xef\xbb\xbf[1,", "x.json is not valid JSON: Expecting value at byte 7 "),
    "something after the list": ("x.json", b"[{}] {}", "x.json is not valid JSON: Extra data at byte 6 "),
    "list with a quote missing": (
        "x.json",
        b'[{"a: 1}, {}]',
        "x.json is not valid JSON: Unterminated string .* byte 3 ",
    ),
    "list far too deep": ("x.json", b"[" * 100_000, "x.json is not valid JSON: maximum recursion depth"),
    "utf-16 list": ("x.json", "[{}]".encode("utf-16"), "is not a list of rows"),
    "empty parquet": ("x.parquet", b"", "cannot be read as parquet: Parquet file size is 0 bytes"),
    "no parquet": ("x.parquet", WHOLE, "cannot be read as parquet: Parquet magic bytes not found"),
    "compressed": ("x.jsonl.gz", b"\x1f\x8b", r"is compressed; unpack it\. Supported are .*hub ids"),
    "unknown ending": ("x.txt", b"a,b", r"ends in '\.txt'\. Supported are"),
    "no ending": ("rows", b"{}", "ends in 'nothing'"),
    "folder without data": ("a.png", b"x", r"data.train: .* contains no \.jsonl"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_read_are_named(opened, tmp_path, case):
    name, content, words = FILES[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as raised:
        opened(tmp_path if name == "a.png" else tmp_path / name)
    assert str(tmp_path) in str(raised.value)


BROKEN_ELEMENTS = {
    "comma missing": (b"[0, {} {}, 2]", "Extra data at character 4 of the row"),
    "comma too many": (b"[0, , 2]", "Expecting value at character 1 of the row"),
    "comma at the end": (b"[0,]", "Expecting value at character 1 of the row"),
    "brackets crossed": (b'[0, {"a": [1}], 2]', "Expecting ',' delimiter at character 9 of the row"),
    "not utf-8": (b'[0, "\xff", 2]', "is not UTF-8 text"),
    "key without quotes": (b'[0, {"a: 1, b": 2, c}, 2]', "Expecting property name .* at character 16 of the row"),
}


@pytest.mark.parametrize("case", BROKEN_ELEMENTS)
def test_a_broken_element_is_named_and_harms_no_other(opened, tmp_path, case):
    content, words = BROKEN_ELEMENTS[case]
    path = tmp_path / "x.json"
    path.write_bytes(content)
    (source,) = opened(path)
    assert source.row(0) == 0
    if len(source) > 2:
        assert source.row(2) == 2
    with pytest.raises(UserError, match=r"x\.json:2 .*" + words):
        source.row(1)


@pytest.mark.parametrize("pattern", ["rows.jsonl", ".", "*.jsonl"])
def test_what_the_system_does_not_let_be_read_is_named(opened, tmp_path, pattern):
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(lines(ROW))
    assert len(opened(folder / pattern)) == 1
    (folder / "rows.jsonl").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(UserError, match=r"data\.train: .* cannot be read: Permission denied"):
            opened(folder / pattern)
    finally:
        os.seteuid(user)


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """Data files among other files, with one row each that names its file."""
    names = (
        "z.jsonl",
        "a.JSONL",
        "deep/er/c.json",
        "deep/d.jsonl",
        "deep/notes/e.jsonl",
        ".hidden.jsonl",
        ".git/x.json",
    )
    for name in names:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([name]) if name.endswith(".json") else json.dumps(name))
    for name in ("deep/a.png", "images.zip", "README.md", "deep/clip.mp4"):
        (tmp_path / "tree" / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("{}", ["a.JSONL", "deep/d.jsonl", "deep/er/c.json", "deep/notes/e.jsonl", "z.jsonl"]),
        ("{}/deep", ["deep/d.jsonl", "deep/er/c.json", "deep/notes/e.jsonl"]),
        ("{}/*", ["a.JSONL", "z.jsonl"]),
        ("{}/*.jsonl", ["z.jsonl"]),
        ("{}/.h*", [".hidden.jsonl"]),
        ("{}/**", ["a.JSONL", "deep/d.jsonl", "deep/er/c.json", "deep/notes/e.jsonl", "z.jsonl"]),
        ("{}/**/*.jsonl", ["deep/d.jsonl", "deep/notes/e.jsonl", "z.jsonl"]),
        ("{}/**/**/[c-d].json*", ["deep/d.jsonl", "deep/er/c.json"]),
        ("{}/d*/??/c.json", ["deep/er/c.json"]),
        ("{}/*/notes/*", ["deep/notes/e.jsonl"]),
        ("{}/deep/../[z]*", ["z.jsonl"]),
    ],
)
@pytest.mark.parametrize("start", ["{}/tree", "tree", "./tree", "~/tree"])
def test_folders_and_globs(opened, tree, monkeypatch, path, expected, start):
    monkeypatch.setenv("HOME", str(tree.parent))
    sources = opened(path.format(start.format(tree.parent)))
    assert [source.row(0) for source in sources] == expected
    assert all((source.folder / Path(source.name).name).samefile(tree / str(source.row(0))) for source in sources)


def test_names_with_glob_characters_are_names_first(opened, tmp_path):
    (tmp_path / "part[1].jsonl").write_text(lines("in brackets"))
    (tmp_path / "part1.jsonl").write_text(lines("without"))
    assert rows(opened(tmp_path / "part[1].jsonl")[0]) == ["in brackets"]
    assert rows(opened(tmp_path / "part[1-2].jsonl")[0]) == ["without"]


WAYS = ("", "**", "**/*.jsonl")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [1, 2])
def test_links_in_circles_are_told(opened, tmp_path, way, number):
    (tmp_path / "below").mkdir()
    (tmp_path / "below/x.jsonl").write_text(lines(ROW))
    for index in range(number):
        (tmp_path / f"below/loop{index}").symlink_to(tmp_path)
    with pytest.raises(UserError, match="below/loop0 is a link to a folder that contains it"):
        opened(tmp_path / way)


LINKS = {
    "nowhere": ("gone.jsonl", "y.jsonl is a broken link"),
    "itself": ("y.jsonl", "y.jsonl (is a broken link|cannot be read: Too many levels of symbolic links)"),
    "a twin": ("x.jsonl", "x.jsonl and .*y.jsonl are the same file"),
}


@pytest.mark.parametrize("case", LINKS)
@pytest.mark.parametrize("way", WAYS)
def test_links_to_files_are_told(opened, tmp_path, case, way):
    target, words = LINKS[case]
    (tmp_path / "x.jsonl").write_text(lines(ROW))
    (tmp_path / "y.jsonl").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=words):
        opened(tmp_path / way)
    if case != "a twin":
        with pytest.raises(UserError, match=words):
            opened(tmp_path / "y.jsonl")


def test_links_out_of_the_folder_are_followed(opened, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.jsonl").write_text(lines("x"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shards").symlink_to(tmp_path / "elsewhere")
    (source,) = opened(tmp_path / "data")
    assert source.row(0) == "x"
    # Relative media paths start at the path that the user names, not at the target of the link.
    assert source.folder == tmp_path / "data/shards"


def test_compressed_data_in_a_folder_is_not_passed_over(opened, tree):
    (tree / "deep/more.jsonl.gz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"more\.jsonl\.gz is compressed; unpack it"):
        opened(tree)


def test_a_pipe_is_no_file(opened, tmp_path):
    os.mkfifo(tmp_path / "x.jsonl")
    for path in (tmp_path, tmp_path / "x.jsonl"):
        with pytest.raises(UserError, match=r"x\.jsonl is not a file"):
            opened(path)


PICTURES = [jpeg("red"), jpeg("blue")]
TABLE = [
    {"id": 1, "images": [{"bytes": PICTURES[0]}], "messages": [{"role": "user", "content": [{"type": "image"}]}]},
    {"id": 2, "messages": [{"role": "user", "content": [{"type": "text", "text": "é"}]}], "system": "Be brief."},
    {"id": 3, "images": [{"bytes": PICTURES[1], "path": "b.jpg"}, {"bytes": PICTURES[0]}], "messages": []},
    {
        "id": 4,
        "images": [None],
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}],
    },
]


def as_pictures(dataset: Dataset) -> Dataset:
    """The column type as on the hub, with which `datasets` would decode images."""
    return dataset.cast_column("images", List(datasets.Image()))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    made = as_pictures(Dataset.from_list([dict.fromkeys(("images", "system")) | row for row in TABLE]))
    assert isinstance(made[0]["images"][0], Pillow.Image)
    return made


@pytest.fixture(scope="module")
def tables(dataset, tmp_path_factory) -> Path:
    """TABLE as each kind of table file."""
    folder = tmp_path_factory.mktemp("tables")
    dataset.to_parquet(folder / "rows.parquet")
    dataset.save_to_disk(folder / "arrow")
    DatasetDict({"test": dataset.select([0]), "train": dataset}).save_to_disk(folder / "splits")
    DatasetDict({"only": dataset}).save_to_disk(folder / "one")
    DatasetDict({"a": dataset, "b": dataset.select([1])}).save_to_disk(folder / "two")
    return folder


@pytest.mark.parametrize(
    ("name", "settings", "called", "expected"),
    [
        ("rows.parquet", {}, "rows.parquet", TABLE),
        ("*.parquet", {}, "rows.parquet", TABLE),
        ("arrow", {}, "arrow", TABLE),
        ("splits", {}, "splits/train", TABLE),
        ("splits", {"split": "test"}, "splits/test", TABLE[:1]),
        ("one", {}, "one/only", TABLE),
        ("two", {"split": "b"}, "two/b", TABLE[1:2]),
        ("splits/test", {}, "splits/test", TABLE[:1]),
    ],
)
def test_tables_give_the_rows_as_they_were(opened, tables, name, settings, called, expected):
    """Keys that only other rows have are removed, and images are their bytes."""
    (source,) = opened(tables / name, **settings)
    assert rows(source) == expected
    assert source.name == str(tables / called)
    assert source.folder == (tables if "parquet" in name else tables / name)
    assert [source.line(index) for index in range(len(source))] == list(range(1, len(expected) + 1))
    assert rows(pickle.loads(pickle.dumps(source))) == expected
    assert len(pickle.dumps(source)) < 5000


TABLE_ERRORS = {
    "split of a file": ("rows.parquet", {"split": "train"}, "split=train has no effect on files"),
    "subset of a glob": ("*.parquet", {"subset": "x"}, "subset=x has no effect on files"),
    "revision of a folder": (".", {"revision": "main"}, "revision=main has no effect on files"),
    "subset of an arrow folder": ("arrow", {"subset": "x"}, "subset=x has no effect on an arrow folder"),
    "split of one dataset": ("arrow", {"split": "train"}, "arrow has no splits; remove split=train"),
    "unknown split": ("splits", {"split": "val"}, "splits has no split val; it has test, train"),
    "which split": ("two", {}, "two has the splits a, b; choose one with split"),
}


@pytest.mark.parametrize("case", TABLE_ERRORS)
def test_settings_that_do_not_fit_a_table_are_told(opened, tables, case):
    name, settings, words = TABLE_ERRORS[case]
    with pytest.raises(UserError, match=r"data\.train: .*" + words):
        opened(tables / name, **settings)


DAMAGES = {
    "parquet cut": (
        "rows.parquet",
        "rows.parquet",
        lambda whole: whole[:-50],
        "rows.parquet cannot be read as parquet",
    ),
    "parquet overwritten": (
        "rows.parquet",
        "rows.parquet",
        lambda whole: whole[:8] + b"\xff" * 60 + whole[68:],
        "rows.parquet cannot be read as parquet",
    ),
    "arrow cut": (
        "arrow",
        "data-00000-of-00001.arrow",
        lambda whole: whole[:200],
        "arrow is not a complete arrow dataset",
    ),
    "arrow file missing": ("arrow", "data-00000-of-00001.arrow", None, "00001.arrow cannot be read: No such file"),
    "arrow description": ("arrow", "state.json", lambda whole: whole[:9], "arrow is not a complete arrow dataset"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_tables_are_told(opened, tmp_path, tables, case, capfd):
    shutil.copytree(tables, tmp_path, dirs_exist_ok=True)
    name, file, damage, words = DAMAGES[case]
    path = tmp_path / name / file if name == "arrow" else tmp_path / file
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=words):
        opened(tmp_path / name)
    assert "Traceback" not in capfd.readouterr().err


def test_a_table_without_rows_is_told(opened, tmp_path, dataset):
    pyarrow.parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.int64())}), tmp_path / "x.parquet")
    dataset.select([]).save_to_disk(tmp_path / "none")
    for name in ("x.parquet", "none"):
        with pytest.raises(UserError, match=rf"{name} has no rows"):
            opened(tmp_path / name)


def test_a_huge_row_of_a_table_is_refused_unread(opened, tables, monkeypatch):
    monkeypatch.setattr(table, "LARGEST_ROW", len(PICTURES[0]) + len(PICTURES[1]))
    (source,) = opened(tables / "rows.parquet")
    assert source.row(0) == TABLE[0]
    with pytest.raises(UserError, match=r"rows\.parquet:3 is .* MiB large"):
        source.row(2)


def test_columns_of_json_are_read_as_they_were_written(opened, tmp_path):
    """`datasets` stores rows of mixed types in this way. Here, null is a value that the user wrote."""
    content = [
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "z", "more": None}]}]},
    ]
    Dataset.from_list(content, on_mixed_types="use_json").to_parquet(tmp_path / "x.parquet")
    assert rows(opened(tmp_path / "x.parquet")[0]) == content


def test_a_struct_without_values_is_a_key_without_a_value(opened, tmp_path):
    column = [None, {"url": None, "of": {"id": None}}, {"url": "u", "of": {"id": None}}]
    pyarrow.parquet.write_table(pyarrow.table({"image_url": column}), tmp_path / "x.parquet")
    assert rows(opened(tmp_path / "x.parquet")[0]) == [{}, {}, {"image_url": {"url": "u"}}]


def test_a_parquet_file_written_anew_is_read_anew(opened, tmp_path):
    path = tmp_path / "x.parquet"
    marks = []
    for number in (1, 2):
        pyarrow.parquet.write_table(pyarrow.table({"a": [number]}), path)
        (source,) = opened(path)
        assert rows(source) == [{"a": number}]
        marks.append(source.fingerprint())
    assert marks[0] != marks[1]


def test_processes_open_a_parquet_file_at_the_same_time(tables, cache):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        given = [(cache, tables / "rows.parquet")] * 4
        assert pool.starmap(_rows_of, given, chunksize=1) == [TABLE] * 4


def _rows_of(cache: Path, path: Path) -> list[object]:
    return rows(_opened(cache, path)[0])


def test_tables_open_quietly_and_leave_bars_as_they_were(opened, tables, capfd):
    datasets.enable_progress_bars()
    opened(tables / "rows.parquet")
    assert capfd.readouterr().err == ""
    assert not datasets.are_progress_bars_disabled()


class Hub:
    """Replaces `datasets.load_dataset`."""

    def __init__(self, splits: DatasetDict):
        self._splits = splits
        self.asked: list[tuple] = []

    def __call__(self, path: str, name: str | None, split: str | None, revision: str | None, streaming: bool):
        assert not streaming
        self.asked.append((path, name, split, revision))
        return self._splits[split] if split else self._splits


@pytest.fixture
def hub(dataset, monkeypatch) -> Hub:
    stand_in = Hub(DatasetDict({"train": dataset, "test": dataset.select([0])}))
    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    return stand_in


def test_a_hub_id_goes_to_the_hub(opened, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (source,) = opened("org/name-v1.5", subset="small", revision="main")
    assert hub.asked == [("org/name-v1.5", "small", None, "main")]
    assert (source.name, source.folder) == ("org/name-v1.5/small/train", tmp_path)
    assert rows(source) == TABLE
    (source,) = opened("org/name", split="test")
    assert hub.asked[1] == ("org/name", None, "test", None)
    assert (source.name, rows(source)) == ("org/name/test", TABLE[:1])


@pytest.mark.parametrize(
    "path",
    [
        *(
            "./org/name",
            "/org/name",
            "~/org/name",
            "org/name.jsonl",
            "org/name.csv",
            "org/*",
            "../a/b",
            "name",
            "a/b/c",
        ),
        *("https://host/x.jsonl", "s3://bucket", "hf://datasets/org/name", "", " ", "org/na me", "x" * 5000),
    ],
)
def test_what_looks_like_a_path_never_goes_to_the_hub(opened, hub, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^data\.train"):
        opened(path)
    assert hub.asked == []


def test_a_local_path_wins_over_the_hub(opened, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "org/name").write_text("x")
    with pytest.raises(UserError, match="ends in 'nothing'"):
        opened("org/name")
    (tmp_path / "org/rows").mkdir()
    (tmp_path / "org/rows/x.jsonl").write_text(lines("local"))
    assert rows(opened("org/rows")[0]) == ["local"]
    assert hub.asked == []


def test_without_network_a_hub_id_is_told(opened, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError,
        match=r"org/name is not a local file or folder, and cannot be loaded as a hub dataset: Couldn't reach",
    ):
        opened("org/name")


def messages(answer: str) -> dict:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def joined(cache):
    def join(*paths: Path, remote: bool = False, **given: str) -> Samples:
        configs = tuple(SourceConfig(path=str(path), **given) for path in paths)
        return Samples(configs, "data.train", remote, cache)

    return join


def answers(samples: Samples, order: list[int] | range) -> list[str]:
    return [samples[index].turns[1].parts[0].text for index in order]


@pytest.fixture
def mixed(tmp_path) -> list[Path]:
    """Seven samples, numbered from 0: a folder of two files, a list, and a parquet file."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/1.jsonl").write_text("\n" + lines(messages("0"), messages("1")).replace("\n", "\n\n"))
    (tmp_path / "folder/2.json").write_text(json.dumps([messages("2")]))
    (tmp_path / "list.json").write_text(json.dumps([messages("3"), messages("4")]))
    Dataset.from_list([messages("5"), messages("6")]).to_parquet(tmp_path / "table.parquet")
    return [tmp_path / "folder", tmp_path / "list.json", tmp_path / "table.parquet"]


def test_all_sources_are_one_sequence(joined, tmp_path, mixed):
    samples = joined(*mixed)
    assert len(samples) == 7
    assert answers(samples, [6, 0, 3, 2, 5, 1, 4]) == list("6032514")
    assert answers(samples, np.arange(7)) == list("0123456")
    assert [(group.config.path, group.start, group.stop) for group in samples.entries] == [
        (str(mixed[0]), 0, 3),
        (str(mixed[1]), 3, 5),
        (str(mixed[2]), 5, 7),
    ]
    expected = ["folder/1.jsonl:2", "folder/1.jsonl:4", "folder/2.json:1"]
    expected += ["list.json:1", "list.json:2", "table.parquet:1", "table.parquet:2"]
    assert ["{}:{}".format(*samples.origin(index)) for index in range(7)] == [f"{tmp_path}/{name}" for name in expected]
    assert [f"{samples[index].source}:{samples[index].line}" for index in range(7)] == [
        f"{tmp_path}/{name}" for name in expected
    ]
    assert samples.names() == [
        f"{tmp_path}/{name}" for name in ("folder/1.jsonl", "folder/2.json", "list.json", "table.parquet")
    ]


def test_one_entry_twice_is_two_groups(joined, mixed):
    samples = joined(mixed[1], mixed[1])
    assert [(group.start, group.stop) for group in samples.entries] == [(0, 2), (2, 4)]
    assert answers(samples, range(4)) == list("3434")
    assert len(samples.describe()) == 2


def test_processes_read_at_the_same_time(joined, mixed):
    """Forked processes share open files. None may move the file position of another one."""
    samples = joined(*mixed)
    order = [random.Random(0).randrange(7) for _ in range(800)]
    with multiprocessing.get_context("fork").Pool(4, initializer=_share, initargs=(samples,)) as pool:
        assert pool.map(_answer, order, chunksize=1) == [str(index) for index in order]


def _share(samples: Samples) -> None:
    global _shared
    _shared = samples


def _answer(index: int) -> str:
    return answers(_shared, [index])[0]


def test_samples_go_to_another_process_as_numbers_and_paths(joined, mixed):
    sent = pickle.dumps(joined(*mixed))
    assert len(sent) < 8000
    assert answers(pickle.loads(sent), range(7)) == list("0123456")


def test_the_format_of_each_source_is_told_with_its_reason(joined, tmp_path, mixed):
    llava = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
    (tmp_path / "llava.jsonl").write_text(lines(llava))
    (tmp_path / "odd.jsonl").write_text(lines({"words": "x"}, {"words": "y"}))
    told = joined(*mixed, tmp_path / "llava.jsonl", tmp_path / "odd.jsonl").describe()
    assert told[0].startswith(f"{tmp_path}/folder: 2 files, 3 rows, messages")
    assert told[1].startswith(f"{tmp_path}/list.json: 2 rows, messages")
    assert told[3].startswith(f"{tmp_path}/llava.jsonl: 1 row, llava: rows have 'conversations'")
    assert told[4] == f"{tmp_path}/odd.jsonl: 2 rows, no known format in its first rows"
    (tmp_path / "folder/3.jsonl").write_text(lines(llava))
    assert [line.split(",")[0] for line in joined(mixed[0]).describe()] == [
        f"{tmp_path}/folder/{name}" for name in ("1.jsonl: 2 rows", "2.json: 1 row", "3.jsonl: 1 row")
    ]
    assert joined(tmp_path / "llava.jsonl", format="llava").describe()[0].endswith("1 row, llava: set in its entry")


def test_a_forced_format_is_the_one_that_rows_are_read_in(joined, tmp_path):
    both = messages("in messages") | {"query": "Hi", "response": "in columns"}
    (tmp_path / "x.jsonl").write_text(lines(both))
    assert answers(joined(tmp_path / "x.jsonl", format="messages"), [0]) == ["in messages"]
    assert answers(joined(tmp_path / "x.jsonl", format="query_response"), [0]) == ["in columns"]


@pytest.mark.parametrize("head", [1, 1500])
def test_broken_rows_at_the_head_are_their_own_error(joined, tmp_path, head):
    """With skipping, the other rows are still read. The first rows need not determine the format."""
    (tmp_path / "x.jsonl").write_text('{"id": 1, "mess\n' * head + lines({"id": 2}, messages("good")))
    samples = joined(tmp_path / "x.jsonl")
    for index, words in ((0, "1 is not valid JSON"), (head, rf"{head + 1} .*(has the keys id|has no 'messages')")):
        with pytest.raises(UserError, match=r"x\.jsonl:" + words):
            samples[index]
    assert answers(samples, [head + 1]) == ["good"]


def test_paths_start_at_media_root_or_at_the_file(joined, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("rows") / "x.jsonl"
    picture = {"type": "image", "image": "a.png"}
    row = {"messages": [{"role": "user", "content": [picture]}, {"role": "assistant", "content": "Red."}]}
    elsewhere.write_text(lines(row))
    Pillow.new("RGB", (60, 60)).save(tmp_path / "a.png")
    assert joined(elsewhere)[0].images[0].content == str(elsewhere.parent / "a.png")
    assert joined(elsewhere, media_root=str(tmp_path))[0].images[0].content == str(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"data\.train: media_root .*/no of .*x\.jsonl is not a folder"):
        joined(elsewhere, media_root=str(tmp_path / "no"))
    elsewhere.write_text(lines(row).replace("a.png", "../a.png"))
    assert joined(elsewhere)[0].images
    with pytest.raises(UserError, match="outside media_root"):
        joined(elsewhere, media_root=str(tmp_path))[0]


def test_the_fingerprint_tells_what_decides_the_samples(joined, tmp_path, mixed):
    seen = {joined(*mixed).fingerprint()}
    assert {joined(*mixed).fingerprint()} == seen

    def differs(samples: Samples) -> bool:
        new = samples.fingerprint() not in seen
        seen.add(samples.fingerprint())
        return new

    assert differs(joined(*mixed[::-1]))
    assert differs(joined(*mixed[:2]))
    assert differs(joined(*mixed, format="messages"))
    assert differs(joined(*mixed, media_root=str(tmp_path)))
    assert differs(joined(*mixed, remote=True))
    for path in (tmp_path / "folder/1.jsonl", mixed[1], mixed[2]):
        os.utime(path, ns=(0, 1))
        assert differs(joined(*mixed))
    mixed[1].write_text(json.dumps([messages("3"), messages("5")]))
    os.utime(mixed[1], ns=(0, 1))
    assert not differs(joined(*mixed))  # the same size and modification time, which is all that is compared
    mixed[1].write_text(json.dumps([messages("3"), messages("44")]))
    os.utime(mixed[1], ns=(0, 1))
    assert differs(joined(*mixed))
