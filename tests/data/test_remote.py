"""Data files and media at addresses that fsspec serves, here a bucket in memory that stands for one of S3."""

import io
import json
from pathlib import Path
from typing import ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry, known_implementations
from PIL import Image

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.schema import DataConfig
from qwenvl_train.data import remote
from qwenvl_train.data.media import locate
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.samples import Samples, make_locator
from qwenvl_train.data.sources.finding import refuse_missing
from qwenvl_train.data.sources.opening import open_flows
from qwenvl_train.errors import UserError
from tests.settings import run_config

ROW = {"image": "a.png", "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "Red."}]}


class Bucket(MemoryFileSystem):
    protocol = "s3"
    store: ClassVar[dict] = {}
    opened: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("s3://")).lstrip("/")

    def _open(self, path, mode="rb", **options):
        if "r" in mode:
            self.opened.append(path)
        return super()._open(path, mode, **options)


@pytest.fixture
def bucket(monkeypatch) -> Bucket:
    monkeypatch.setitem(_registry, "s3", Bucket)
    Bucket.store.clear()
    Bucket.opened.clear()
    bucket = Bucket()
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(buffer, "PNG")
    bucket.pipe(
        {
            "lake/x/a.png": buffer.getvalue(),
            "lake/x/rows.jsonl": lines("1", "2"),
            "lake/x/notes.txt": b"no",
            "lake/x/.old/rows.jsonl": b"no",
        }
    )
    bucket.pipe({"lake/x/y/more.json": json.dumps([ROW]).encode()})
    bucket.pipe({"lake/x/.old/rows.jsonl": b"no", "packed/rows.jsonl.gz": b"no"})
    return bucket


def lines(*ids: str) -> bytes:
    return "".join(json.dumps(ROW | {"id": id}) + "\n" for id in ids).encode()


def samples_of(path: str, cache: Path, allow_remote: bool = True) -> Samples:
    return Samples((SourceConfig(path=path),), "data.train", allow_remote, cache)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("s3://lake/x/rows.jsonl", ["s3://lake/x/rows.jsonl"] * 2),
        ("s3://lake/x", ["s3://lake/x/rows.jsonl"] * 2 + ["s3://lake/x/y/more.json"]),
        ("s3://lake/*/*.jsonl", ["s3://lake/x/rows.jsonl"] * 2),
    ],
)
def test_rows_are_those_at_the_address(bucket, tmp_path, path, names):
    samples = samples_of(path, tmp_path)
    assert [samples.origin(index)[0] for index in range(len(samples))] == names
    flows = open_flows(SourceConfig(path=path), "data.train", tmp_path, allow_remote=True)
    assert [flow.name for flow in flows for _ in flow.rows(None)] == names


def test_media_of_a_row_start_at_the_folder_of_its_address(bucket, tmp_path):
    samples = samples_of("s3://lake/x/rows.jsonl", tmp_path)
    for index in range(2):
        content = samples[index].images[0].content
        assert Path(content).read_bytes() == bucket.cat("lake/x/a.png")
    assert Bucket.opened == ["lake/x/rows.jsonl", "lake/x/a.png"]


def test_a_data_file_is_fetched_again_only_when_it_was_changed(bucket, tmp_path):
    assert len(samples_of("s3://lake/x/rows.jsonl", tmp_path)) == 2
    before = samples_of("s3://lake/x/rows.jsonl", tmp_path).fingerprint()
    assert Bucket.opened == ["lake/x/rows.jsonl"]
    bucket.pipe("lake/x/rows.jsonl", lines("1", "2", "3"))
    assert len(samples_of("s3://lake/x/rows.jsonl", tmp_path)) == 3
    assert samples_of("s3://lake/x/rows.jsonl", tmp_path).fingerprint() != before


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (
            "s3://lake/gone.jsonl",
            "data.train: there is no .jsonl, .json, .parquet, .csv or .tsv file at s3://lake/gone.jsonl",
        ),
        ("s3://packed", r"s3://packed/rows\.jsonl\.gz is compressed; unpack it"),
        ("s3://lake/z", "there is no .jsonl, .json, .parquet, .csv or .tsv file at s3://lake/z"),
        ("s3://lake/x/rows.jsonl::file:///etc/passwd", "an address with '::' is not supported"),
        ("gs://lake/rows.jsonl", "data.train: gs://lake/rows.jsonl could not be listed: Please install gcsfs"),
        ("memory://lake/rows.jsonl", "is an address"),
    ],
)
def test_a_data_file_that_cannot_be_fetched_is_named(bucket, tmp_path, path, reason):
    with pytest.raises(UserError, match=reason):
        samples_of(path, tmp_path)


def test_nothing_is_fetched_unasked(bucket, tmp_path):
    data = run_config(**{"data.train": "s3://lake/x/rows.jsonl"}).data
    assert isinstance(data, DataConfig)
    assert not data.allow_remote
    with pytest.raises(UserError, match=r"data\.train: s3://lake/x/rows\.jsonl is not fetched; set data\.allow_remote"):
        refuse_missing(data)
    with pytest.raises(UserError, match=r"data\.allow_remote"):
        samples_of("s3://lake/x/rows.jsonl", tmp_path, allow_remote=False)
    refuse_missing(data.model_copy(update={"allow_remote": True}))
    assert Bucket.opened == []


def test_rows_at_an_address_name_no_files_of_this_machine(bucket, tmp_path):
    bucket.pipe("lake/x/rows.jsonl", json.dumps(ROW | {"image": "/etc/passwd"}).encode())
    with pytest.raises(UserError, match=r"/etc/passwd is a file of this machine, .* only if media_root of their entry"):
        samples_of("s3://lake/x/rows.jsonl", tmp_path)[0]
    config = SourceConfig(path="s3://lake/x/rows.jsonl", media_root="/etc")
    samples = Samples((config,), "data.train", allow_remote=True, cache=tmp_path)
    assert samples[0].images[0].content == "/etc/passwd"


def test_rows_of_a_hub_id_name_no_files_outside_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "rows").touch()
    published, own = (
        make_locator(tmp_path, SourceConfig(path=path), "data.train", False, tmp_path)
        for path in ("someone/rows", "some/rows")
    )
    assert published.locate("a.png", "here") == str(tmp_path / "a.png")
    with pytest.raises(UserError, match="is outside media_root"):
        published.locate("/etc/passwd", "here")
    assert own.locate("/etc/passwd", "here") == "/etc/passwd"


@pytest.fixture
def locator(tmp_path) -> Locator:
    return Locator(tmp_path, fenced=True, allow_remote=True, cache=tmp_path / "cache")


def test_a_medium_is_fetched_once(bucket, locator):
    path = Path(locator.locate("s3://lake/x/a.png", "here"))
    assert path == locator.cache / "remote" / path.name
    assert locator.locate("s3://lake/x/a.png", "here") == str(path)
    assert Bucket.opened == ["lake/x/a.png"]
    assert path.read_bytes() == bucket.cat("lake/x/a.png")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://lake/gone.png", "could not be fetched: there is no such file"),
        ("s3://lake/empty.png", "it ended after 0 bytes"),
        ("s3://lake/large.png", "is larger than 4096 bytes; download it yourself"),
        ("s3://lake/x::file:///etc/passwd", "an address with '::' is not supported"),
        ("gs://lake/a.png", "install gcsfs"),
        ("local:///etc/passwd", "is not supported; copy the file to a disk"),
        ("zip://a::file:///etc/passwd", "is not supported; copy the file to a disk"),
        ("sftp://10.0.0.1/a.png", r"may be in a private network; set data\.allow_remote=private"),
        ("ftp://127.0.0.1/a.png", r"may be in a private network; set data\.allow_remote=private"),
    ],
)
def test_a_medium_that_cannot_be_fetched_is_named_and_leaves_nothing(bucket, locator, monkeypatch, address, reason):
    monkeypatch.setattr(locate, "_REMOTE_BYTES", 4096)
    bucket.pipe({"lake/empty.png": b"", "lake/large.png": b"x" * 5000})
    with pytest.raises(UserError, match=reason):
        locator.locate(address, "here")
    assert [path for path in locator.cache.rglob("*") if path.is_file()] == []


def test_no_protocol_reaches_files_of_this_machine():
    known = known_implementations
    reaching = {"asynclocal", "data", "dir", "file", "git", "libarchive", "local", "memory", "reference", "tar", "zip"}
    assert reaching <= known.keys()
    assert reaching.isdisjoint(remote.PROTOCOLS)
    assert known.keys() | {"abfss"} >= remote.PROTOCOLS
