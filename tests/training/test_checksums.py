"""A damaged checkpoint is recognized by its checksums, which `sha256sum` reads, too."""

import shutil
import subprocess
from pathlib import Path

import pytest

from qwenvl_train.training.checksums import CHECKSUMS, damage, write_checksums


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    folder = tmp_path / "step-3"
    (folder / "global_step3").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    (folder / "global_step3" / "states of rank 0.pt").write_bytes(b"states")
    write_checksums(folder)
    return folder


def test_sha256sum_reads_the_file(checkpoint):
    assert damage(checkpoint) is None
    if shutil.which("sha256sum"):
        done = subprocess.run(
            ["sha256sum", "--strict", "-c", CHECKSUMS], cwd=checkpoint, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": OK") == 2


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (cut, "the content of model.safetensors is not that of its checksum"),
        (flip, "the content of model.safetensors is not that of its checksum"),
        (Path.unlink, "model.safetensors is missing"),
    ],
)
def test_damage_is_named(harm, fault, checkpoint):
    harm(checkpoint / "model.safetensors")
    assert damage(checkpoint) == fault


def test_an_empty_list_after_a_crash_is_damage(checkpoint):
    (checkpoint / CHECKSUMS).write_bytes(b"\xff\xfe")
    assert "cannot be read" in damage(checkpoint)


def test_a_checkpoint_without_checksums_is_taken_as_it_is(checkpoint):
    (checkpoint / CHECKSUMS).unlink()
    cut(checkpoint / "model.safetensors")
    assert damage(checkpoint) is None
