"""The checkpoints of a run, which are the folders step-N in checkpoints/ of its run folder."""

import re
from pathlib import Path

_NAME = re.compile(r"step-(\d+)")


def saved(checkpoints: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first."""
    return sorted(filter(is_checkpoint, checkpoints.glob("step-*")), key=step_of)


def is_checkpoint(folder: Path) -> bool:
    return _NAME.fullmatch(folder.name) is not None and folder.is_dir()


def step_of(checkpoint: Path) -> int:
    match = _NAME.fullmatch(checkpoint.name)
    assert match, checkpoint
    return int(match[1])
