"""The interface between the trainer and a reporter. A reporter returns nothing to the trainer and does not need
torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Row = dict[str, Any]


@dataclass(frozen=True)
class Lengths:
    """How many training samples have which number of tokens."""

    counts: list[int]
    edges: list[float]
    """The borders of the ranges that are counted, one more than there are ranges."""


@dataclass(frozen=True)
class Forecast:
    """What `qwenvl-train plan` tells of the run, with None for what is not known before it."""

    step_seconds: float | None = None
    memory_gib: float | None = None
    """The memory of each device, with what CUDA takes for itself."""


NO_FORECAST = Forecast()


@dataclass(frozen=True)
class RunInfo:
    name: str
    folder: Path
    config: dict[str, Any]
    components: list[Row]
    """One row for each component, with the keys component, mode (full | lora | frozen), parameters, trained, lr (None
    where frozen) and where."""
    total_steps: int
    start_step: int
    """The step at which the run starts. It is above 0 if the run continues a checkpoint."""
    lineage: Row = field(default_factory=dict)
    """What the run starts from, with the key path and, for an adapter, base_model and adapter."""

    lengths: Lengths | None = None
    """The lengths of the training samples, or None if they are not known before the run."""
    forecast: Forecast = NO_FORECAST

    @property
    def resumed(self) -> bool:
        return self.start_step > 0


class Reporter(Protocol):
    """An object that reports the progress of a run. It exists in the first process only, and the values that it
    receives are already reduced over all processes."""

    shows_answers: bool = False
    """Whether the reporter shows answers that are generated at each evaluation, instead of at the first and the last
    one alone."""

    def start(self, run: RunInfo) -> None: ...

    def log(self, row: Row) -> None:
        """Report one logged step or one evaluation. The metrics of an evaluation have names that start with eval_."""

    def answered(self, step: int, rows: list[Row]) -> None:
        """Report the answers that were generated at an evaluation. `rows` are those of predictions.jsonl. A reporter
        that does not show answers ignores them."""
        return

    def saved(self, checkpoint: Path) -> None:
        """Report a new checkpoint. A reporter that does not use checkpoints ignores it."""
        return

    def finish(self, summary: Row) -> None: ...


SOURCES = "sources/"
"""The metrics of each entry of data.train begin with this when a row is flat, and those of data.eval with eval_ and
this."""


def is_evaluation(row: Row) -> bool:
    return any(key.startswith("eval_") for key in row)
