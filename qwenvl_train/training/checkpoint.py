"""Publishes checkpoints. A checkpoint is complete or absent, because it is written to another folder, synced
to disk, and only then renamed."""

import shutil
from pathlib import Path

from qwenvl_train.config.schema import TrainConfig
from qwenvl_train.files import publish_folder
from qwenvl_train.reporting.checkpoints import surplus
from qwenvl_train.step_folders import saved
from qwenvl_train.training.checksums import write_checksums

STREAM = "stream.json"
"""Name of the file in a checkpoint that stores where the stream resumes. Only runs on streamed data have it."""

PROGRESS = "progress.json"
"""Name of the file in a checkpoint that stores the time the run has taken and the counts of what it was trained on."""


def publish(written: Path, checkpoints: Path, step: int, train: TrainConfig) -> Path:
    """Rename the folder `written` to the checkpoint of `step`, and return its path. Only this rename makes a folder a
    checkpoint. Delete the checkpoints that train.keep does not keep."""
    final = checkpoints / f"step-{step}"
    write_checksums(written)
    publish_folder(written, final)
    if train.keep is not None:
        for old in surplus(saved(checkpoints), train.keep, train.best_metric):
            shutil.rmtree(old)
    return final
