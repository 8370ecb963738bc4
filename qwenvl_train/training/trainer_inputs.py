"""What the trainer is made with: facts about the run, what it reads, what it writes, and what it calls."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.batches.loader import EvalRows
from qwenvl_train.data.streaming.stream import Stream
from qwenvl_train.families.family import Family
from qwenvl_train.model.flops import FlopCount
from qwenvl_train.training.broken_steps import BrokenStep
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.meter import Meter
from qwenvl_train.training.objectives.objective import Objective
from qwenvl_train.training.skipped import Skipped

if TYPE_CHECKING:
    from qwenvl_train.training.trainer import VisionTrainer


@dataclass(frozen=True)
class Hooks:
    """Functions of the run that the trainer calls."""

    logged: Callable[[dict[str, Any]], None]
    """Called on every process with each row of metrics."""
    evaluated: Callable[["VisionTrainer"], dict[str, Any]]
    """Called on every process at each evaluation, before its metrics are logged. Returns further metrics, which are the
    same on every process."""
    written: Callable[[Path, int], None]
    """Called on the main process with each folder that is about to become a checkpoint, and its step."""
    saved: Callable[[Path], None]
    """Called on the main process with the path of each new checkpoint, some time after it was written."""
    broken: Callable[["VisionTrainer", BrokenStep], None]
    """Called on every process with each step whose loss or gradient is not a number. Raises an error to end the run."""


@dataclass(frozen=True)
class TrainerSetup:
    """What the trainer needs to know of a run."""

    config: RunConfig
    family: Family
    processor: Any
    objective: Objective
    cpu_group: CpuGroup


@dataclass(frozen=True)
class TrainerData:
    """What the trainer reads."""

    train: Dataset
    stream: Stream | None
    """The stream that packed rows come from. `train` is then a placeholder."""
    held_out: EvalRows | None
    skipped: Skipped


@dataclass(frozen=True)
class TrainerRecords:
    """What the trainer counts and writes."""

    meter: Meter
    flops: FlopCount
    checkpoints: Path
    checkpoint_bytes: int
    """About how many bytes a checkpoint takes."""
    hooks: Hooks
