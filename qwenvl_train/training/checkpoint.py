"""Publishes checkpoints. A checkpoint is complete or absent, because it is written to another folder, synced
to disk, and only then renamed."""

import os
import shutil
from pathlib import Path

from qwenvl_train.config.schema import TrainConfig
from qwenvl_train.reporting.checkpoints import saved, surplus

STREAM = "stream.json"
"""Name of the file in a checkpoint that stores where the stream resumes. Only runs on streamed data have it."""

PROGRESS = "progress.json"
"""Name of the file in a checkpoint that stores the time the run has taken and the counts of what it was trained on."""


def publish(written: Path, checkpoints: Path, step: int, train: TrainConfig) -> Path:
    """Rename the folder `written` to the checkpoint of `step`, and return its path. Only this rename makes a folder a
    checkpoint. Delete the checkpoints that train.keep does not keep."""
    for file in sorted(written.rglob("*")):
        if file.is_file():
            _sync(file)
    checkpoints.mkdir(exist_ok=True)
    final = checkpoints / f"step-{step}"
    if final.exists():
        shutil.rmtree(final)
    os.replace(written, final)
    _sync(checkpoints)
    if train.keep is not None:
        for old in surplus(saved(checkpoints), train.keep, train.best_metric):
            shutil.rmtree(old)
    return final


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
