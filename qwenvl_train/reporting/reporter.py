"""What the trainer tells a reporter. A reporter asks nothing back, and knows nothing of torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Row = dict[str, Any]


@dataclass(frozen=True)
class RunInfo:
    name: str
    folder: Path
    config: dict[str, Any]
    components: list[Row]
    """component, mode (full | lora | frozen), parameters, trained, lr (None where frozen), where."""
    total_steps: int
    start_step: int
    """Above 0 where the run continues a checkpoint."""

    @property
    def resumed(self) -> bool:
        return self.start_step > 0


class Reporter(Protocol):
    """Lives in the first process only; what it is told is already reduced over all processes."""

    def start(self, run: RunInfo) -> None: ...

    def log(self, row: Row) -> None:
        """Takes one logged step, or one evaluation, whose figures are all called eval_…"""

    def finish(self, summary: Row) -> None: ...


def is_evaluation(row: Row) -> bool:
    return any(key.startswith("eval_") for key in row)
