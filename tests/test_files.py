"""A file is written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from qwenvl_train.files import is_full_disk, publish_folder, replacing


def test_a_file_appears_only_once_it_is_complete(tmp_path: Path):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with replacing(path, sync=True) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("kept.txt", "new")]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("kept.txt", "old")]


def test_two_writers_of_one_path_do_not_mix(tmp_path: Path):
    path = tmp_path / "kept.txt"
    with replacing(path) as first:
        with replacing(path) as second:
            first.write(b"first")
            second.write(b"second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_the_error_of_a_folder_that_does_not_exist_is_its_own(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), replacing(tmp_path / "file" / "kept.txt"):
        raise AssertionError("the block must not run")


def _interrupted(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_a_full_disk_is_told_from_other_errors():
    from_torch = RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")
    from_rust = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    at_exit = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 20800 vs 20692")
    for error in (at_exit, OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota"), from_torch, from_rust):
        assert is_full_disk(error)
        outer = ValueError("saving failed")
        outer.__cause__ = error
        assert is_full_disk(outer)
    assert not is_full_disk(OSError(errno.EACCES, "Permission denied"))
    assert not is_full_disk(ValueError("out of space"))


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    written, final = tmp_path / "written", tmp_path / "folders" / "final"
    (written / "inner").mkdir(parents=True)
    for name in ("a", "inner/b"):
        (written / name).write_text(name)
    (final / "old").mkdir(parents=True)
    done: list[str] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.readlink(f"/proc/self/fd/{handle}")) or sync(handle))
    monkeypatch.setattr(os, "replace", lambda one, other: done.append("renamed") or rename(one, other))
    publish_folder(written, final)
    assert done == [str(written / "a"), str(written / "inner" / "b"), "renamed", str(final.parent)]
    assert sorted(path.name for path in final.rglob("*")) == ["a", "b", "inner"]


def test_a_published_folder_can_be_read_by_those_who_can_read_the_folder_above(tmp_path):
    """safetensors makes files that only their owner can read."""
    (written := tmp_path / "written" / "inner").mkdir(parents=True)
    for mode, name in ((0o600, "model.safetensors"), (0o755, "inner/states.pt")):
        (tmp_path / "written" / name).touch(mode)
    written.parent.chmod(0o755)
    publish_folder(written.parent, tmp_path / "final" / "step-1")
    found = [file.stat().st_mode & 0o777 for file in (tmp_path / "final").rglob("*") if file.is_file()]
    assert found == [0o644, 0o644]
