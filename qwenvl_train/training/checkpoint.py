"""Checkpoints that are whole or absent: written aside, synced, then renamed; and which one a run goes on from."""

import os
import re
import shutil
from pathlib import Path

STREAM = "stream.json"
"""In a checkpoint of a run on streamed data: where the stream goes on."""

PROGRESS = "progress.json"
"""In a checkpoint: how long the run has taken, and what it has seen."""

_NAME = re.compile(r"step-(\d+)")


def publish(written: Path, checkpoints: Path, step: int, keep: int | None) -> Path:
    """Only this rename makes a folder a checkpoint."""
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
    """Complete checkpoints, oldest first."""
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
