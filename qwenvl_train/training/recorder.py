"""What a run leaves behind while it goes and when it ends; the trainer's hooks lead here."""

import json
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
    _last: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        if not self.writes:
            return
        stored = self.info.folder / "predictions.jsonl"
        if self.info.resumed and stored.is_file():
            self.predictions = [json.loads(line) for line in stored.read_text(encoding="utf-8").splitlines()]
        for reporter in self.reporters:
            reporter.start(self.info)

    def logged(self, row: dict[str, Any]) -> None:
        if not is_evaluation(row):
            self._last = row
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
                "after" if step else "before": given.generated,
            }
        self.predictions = rows
        if self.writes:
            RunFolder(self.info.folder).write_predictions(rows)

    def finish(self, status: str, reason: str | None = None) -> Path | None:
        """The report's path, on the main process."""
        if not self.writes:
            return None
        rows = read_metrics(self.info.folder)
        evaluations = [row for row in rows if is_evaluation(row)]
        best = min(evaluations, key=lambda row: (-row["eval_exact_match"], row["eval_loss"]), default=None)
        summary = {
            "status": status,
            "reason": reason,
            "steps": self._last.get("step", self.info.start_step),
            "samples": self._last.get("samples", 0),
            "tokens": self._last.get("tokens", 0),
            "seconds": self._last.get("seconds", 0.0),
            "metrics": {
                "before": evaluations[0] if evaluations and evaluations[0]["step"] == 0 else None,
                "after": evaluations[-1] if len(evaluations) > 1 else None,
            },
            "best": best,
            "checkpoint": self.checkpoint,
        }
        RunFolder(self.info.folder).write_summary(summary)
        for reporter in self.reporters:
            reporter.finish(summary)
        return write_report(self.info.folder)


def _is_sharded() -> bool:
    from transformers.integrations import is_deepspeed_zero3_enabled

    return is_deepspeed_zero3_enabled()
