"""What a run leaves behind while it goes and when it ends; the trainer's hooks lead here."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwenvl_train.data.render import Renderer
from qwenvl_train.data.samples import Samples
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.metrics import read_metrics
from qwenvl_train.reporting.report import write_report
from qwenvl_train.reporting.reporter import Reporter, RunInfo, is_evaluation
from qwenvl_train.training.evaluation import answer


@dataclass
class Recorder:
    """One on every process; only the main one (`writes`) has reporters and touches the folder."""

    info: RunInfo
    writes: bool
    reporters: list[Reporter]
    eval_samples: Samples | None
    renderer: Renderer
    processor: Any
    checkpoint: Path | None
    """The newest; at the start, the one that the run goes on from."""
    predictions: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        if not self.writes:
            return
        stored = self.info.folder / "predictions.jsonl"
        if self.info.resumed and stored.is_file():
            self.predictions = [json.loads(line) for line in stored.read_text(encoding="utf-8").splitlines()]
        for reporter in self.reporters:
            reporter.start(self.info)

    def logged(self, row: dict[str, Any]) -> None:
        for reporter in self.reporters:
            reporter.log(row)

    def saved(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def evaluated(self, trainer) -> None:
        """Answers before the first step and after the last go into the report."""
        step, sharded = trainer.state.global_step, trainer.is_deepspeed_enabled and _is_sharded()
        if step not in (0, trainer.state.max_steps) or not (self.writes or sharded):
            return
        assert self.eval_samples is not None
        wanted = min(self.info.config["logging"]["predictions"], len(self.eval_samples))
        rows = self.predictions or [{} for _ in range(wanted)]
        for index in range(wanted):
            sample = self.eval_samples[index]
            with trainer.accelerator.autocast():
                given = answer(trainer.model, sample, self.renderer, self.processor, synced=sharded)
            rows[index] |= {
                "id": sample.id,
                "source": sample.source,
                "line": sample.line,
                "images": [image.path for image in sample.images],
                "prompt": given.prompt,
                "expected": given.expected,
                "before": rows[index].get("before"),
                "after": None,
                "after" if step else "before": given.generated,
            }
        self.predictions = rows
        if self.writes:
            RunFolder(self.info.folder).write_predictions(rows)

    def finish(self, status: str, totals: dict[str, float], reason: str | None = None) -> Path | None:
        """`totals` are the meter's. The report's path, on the main process."""
        if not self.writes:
            return None
        evaluations = [row for row in read_metrics(self.info.folder) if is_evaluation(row)]
        summary = {
            "status": status,
            "reason": reason,
            "steps": totals["step"],
            "samples": totals["samples"],
            "tokens": totals["tokens"],
            "seconds": totals["seconds"],
            "metrics": {
                "before": next((row for row in evaluations if row["step"] == 0), None),
                "after": next((row for row in reversed(evaluations) if row["step"] > 0), None),
            },
            "best": min(evaluations, key=_badness, default=None),
            "checkpoint": self.checkpoint,
        }
        RunFolder(self.info.folder).write_summary(summary)
        for reporter in self.reporters:
            reporter.finish(summary)
        return write_report(self.info.folder)


def _badness(row: dict[str, Any]) -> tuple[float, float]:
    """A loss that was no number is stored as null, and is the worst."""
    loss = row["eval_loss"]
    return -row["eval_exact_match"], math.inf if loss is None else loss


def _is_sharded() -> bool:
    from transformers.integrations import is_deepspeed_zero3_enabled

    return is_deepspeed_zero3_enabled()
