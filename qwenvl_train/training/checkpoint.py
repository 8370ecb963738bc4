"""Publishes and lists checkpoints. A checkpoint is complete or absent, because it is written to another folder, synced
to disk, and only then renamed."""

import os
import re
import shutil
from pathlib import Path

STREAM = "stream.json"
"""Name of the file in a checkpoint that stores where the stream resumes. Only runs on streamed data have it."""

PROGRESS = "progress.json"
"""Name of the file in a checkpoint that stores the time the run has taken and the counts of what it was trained on."""

_NAME = re.compile(r"step-(\d+)")


def publish(written: Path, checkpoints: Path, step: int, keep: int | None) -> Path:
    """Rename the folder `written` to the checkpoint of `step`, and return its path. Only this rename makes a folder a
    checkpoint. Delete all but the newest `keep` checkpoints, unless `keep` is None."""
    for file in sorted(written.rglob("*")):
        if file.is_file():
            _sync(file)
    checkpoints.mkdir(exist_ok=True)
    final = checkpoints / f"step-{step}"
    if final.exists():
        shutil.rmtree(final)
    os.replace(written, final)
    _sync(checkpoints)
    if keep is not None:
        for old in saved(checkpoints)[:-keep]:
            shutil.rmtree(old)
    return final


def saved(checkpoints: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first."""
    return sorted(filter(is_checkpoint, checkpoints.glob("step-*")), key=step_of)


def is_checkpoint(folder: Path) -> bool:
    return _NAME.fullmatch(folder.name) is not None and folder.is_dir()


def step_of(checkpoint: Path) -> int:
    match = _NAME.fullmatch(checkpoint.name)
    assert match, checkpoint
    return int(match[1])


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
