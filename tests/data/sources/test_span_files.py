"""The positions of rows in a large file are stored, and computed again if the stored ones cannot be right."""

import json
import os

import numpy as np
import pytest

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.sources import span_files, text
from qwenvl_train.data.sources.opening import open_flows, open_sources
from qwenvl_train.errors import UserError

ROWS = [{"id": index, "text": "é" * index} for index in range(20)]
NAMES = pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])


@pytest.fixture(autouse=True)
def all_files_are_large(monkeypatch):
    monkeypatch.setattr(span_files, "_LARGE", 0)


@pytest.fixture
def found(monkeypatch):
    """Counts how often a file was scanned."""
    times = []
    for name in ("line_spans", "list_spans"):
        whole = getattr(text, name)
        monkeypatch.setattr(text, name, lambda path, whole=whole: times.append(path) or whole(path))
    return times


@pytest.fixture
def write(tmp_path):
    def write(name: str, rows: list) -> str:
        path = tmp_path / name
        path.write_text("\n\n".join(map(json.dumps, rows)) if name == "rows.jsonl" else json.dumps(rows))
        return str(path)

    return write


def read(path: str, cache) -> list[tuple[int, object]]:
    (source,) = open_sources(SourceConfig(path=path), "data.train", cache)
    return [(source.line(index), source.row(index)) for index in range(len(source))]


@NAMES
def test_a_second_start_does_not_go_through_the_file(name, write, found, tmp_path):
    path = write(name, ROWS)
    first = read(path, tmp_path)
    assert [row for _, row in first] == ROWS
    assert read(path, tmp_path) == first
    assert len(found) == 1


@NAMES
def test_what_is_kept_is_mapped_not_read(name, write, tmp_path):
    path = write(name, ROWS)
    read(path, tmp_path)
    (source,) = open_sources(SourceConfig(path=path), "data.train", tmp_path)
    assert isinstance(source.starts, np.memmap)


def test_a_stream_finds_what_a_run_has_kept(write, found, tmp_path):
    path = write("rows.json", ROWS)
    read(path, tmp_path)
    (flow,) = open_flows(SourceConfig(path=path), "data.train", tmp_path)
    assert [row.read() for row in flow.rows(None)] == ROWS
    assert len(found) == 1


@NAMES
def test_a_file_that_has_changed_is_gone_through(name, write, found, tmp_path):
    read(write(name, ROWS), tmp_path)
    path = write(name, ROWS[::-1])
    os.utime(path, (1, 1))
    assert [row for _, row in read(path, tmp_path)] == ROWS[::-1]
    assert len(found) == 2


def test_a_file_that_changes_meanwhile_is_not_kept(write, monkeypatch, tmp_path):
    path = write("rows.jsonl", ROWS)
    whole = text.line_spans
    monkeypatch.setattr(text, "line_spans", lambda path: (whole(path), os.utime(path, (1, 1)))[0])
    open_sources(SourceConfig(path=path), "data.train", tmp_path)
    assert not (tmp_path / "spans").exists()


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "other shape"])
def test_a_damaged_file_is_made_anew(damage, write, found, tmp_path):
    path = write("rows.jsonl", ROWS)
    first = read(path, tmp_path)
    (file,) = (tmp_path / "spans").iterdir()
    match damage:
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(file.read_bytes()[:-8])
        case "other":
            file.write_bytes(b"PK\x03\x04")
        case "other shape":
            np.save(file, np.zeros((2, 20), dtype=np.int64))
    assert read(path, tmp_path) == first
    assert read(path, tmp_path) == first
    assert len(found) == 2


def test_small_files_are_not_kept(write, monkeypatch, tmp_path):
    path = write("rows.jsonl", ROWS)
    monkeypatch.setattr(span_files, "_LARGE", os.path.getsize(path) + 1)
    read(path, tmp_path)
    assert not (tmp_path / "spans").exists()


def test_a_cache_that_cannot_be_written_is_told(write, tmp_path):
    path = write("rows.jsonl", ROWS)
    (tmp_path / "spans").write_text("no folder")
    with pytest.raises(UserError, match=r"data\.cache: .*spans cannot be written"):
        read(path, tmp_path)
