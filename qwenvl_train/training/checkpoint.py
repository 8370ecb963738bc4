"""Publishes checkpoints. A checkpoint is complete or absent, because it is written to another folder, synced
to disk, and only then renamed."""

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
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


class CheckpointPublisher:
    """Publishes checkpoints in a thread, while training goes on. At most one is being published at a time.

    Training waits only while the files are written, to the memory of the operating system. Their checksums and syncing
    do not need the weights any more.
    """

    def __init__(self, checkpoints: Path, train: TrainConfig, saved: Callable[[Path], None]) -> None:
        """`saved` is called with the path of each new checkpoint, in the thread that calls `check` or `wait`."""
        self._checkpoints, self._train, self._saved = checkpoints, train, saved
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[Path] | None = None

    def start(self, written: Path, step: int) -> None:
        """Start to publish the folder `written` as the checkpoint of `step`."""
        self.wait()
        self._pending = self._thread.submit(publish, written, self._checkpoints, step, self._train)

    def check(self) -> None:
        """Raise the error that has ended the publishing, if there is one. This does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the last checkpoint is published, and raise the error that has prevented it, if there is one."""
        if self._pending is not None:
            wait([self._pending])  # an interrupt leaves it pending
            published, self._pending = self._pending, None
            self._saved(published.result())


def publish(written: Path, checkpoints: Path, step: int, train: TrainConfig) -> Path:
    """Rename the folder `written` to the checkpoint of `step`, and return its path. Only this rename makes a folder a
    checkpoint. Delete the checkpoints that train.keep does not keep."""
    final = checkpoints / f"step-{step}"
    write_checksums(written)
    publish_folder(written, final)
    if train.keep is not None:
        for old in surplus(saved(checkpoints), train.keep, train.best_metric):
            # A checkpoint is never there in part. What cannot be deleted now is deleted with the folder at the end.
            discarded = old.rename(written.with_name(f"discarded-{old.name}"))
            shutil.rmtree(discarded, ignore_errors=True)
    return final
