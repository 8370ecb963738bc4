"""Writes the records of a run while it trains and when it ends. The trainer calls it through its hooks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qwenvl_train.evaluation.predictions import place_of, prediction
from qwenvl_train.reporting.checkpoints import best_of, evaluation_in
from qwenvl_train.reporting.folder import RunFolder, package_versions, read_json_lines
from qwenvl_train.reporting.metrics import before_and_after, read_metrics
from qwenvl_train.reporting.model_card import model_card
from qwenvl_train.reporting.pages.report import write_report
from qwenvl_train.reporting.reporter import Reporter, RunInfo
from qwenvl_train.reporting.spikes import Spikes
from qwenvl_train.run.generated_scores import GeneratedScores
from qwenvl_train.run.shown_answers import ShownAnswers
from qwenvl_train.step_folders import saved, step_of
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.skipped import Skipped


@dataclass
class Recorder:
    """Passes figures to the reporters, and writes predictions, summary and report. Every process has a Recorder, but
    only the one of the main process (`writes`) has reporters and writes to the run folder."""

    info: RunInfo
    writes: bool
    reporters: list[Reporter]
    cpu_group: CpuGroup
    checkpoint: Path | None
    """The newest checkpoint. At the start, the checkpoint that the run resumes from."""
    skipped: Skipped
    generated: GeneratedScores | None = None
    """Scores generated answers at each evaluation, with eval.generate."""
    shown: ShownAnswers | None = None
    """Generates the answers that are shown. None without held-out samples."""
    predictions: list[dict[str, Any]] = field(default_factory=list)
    answered_at: int | None = None
    """The step of the newest answers."""
    spikes: Spikes = field(default_factory=Spikes)

    def start(self) -> None:
        if not self.writes:
            return
        if self.info.resumed:
            self.predictions = read_json_lines(self.info.folder / "predictions.jsonl")
            rows = read_metrics(self.info.folder)
            self.spikes = Spikes(row for row in rows if row["step"] <= self.info.start_step)
        for reporter in self.reporters:
            reporter.start(self.info)

    def logged(self, row: dict[str, Any]) -> None:
        row = self.spikes.marked(row)
        for reporter in self.reporters:
            reporter.log(row)

    def written(self, folder: Path, step: int) -> None:
        """Add the model card to a folder that is about to become a checkpoint. PEFT writes one without any facts."""
        card = model_card(self.info, step, package_versions(), evaluation_in(folder))
        (folder / "README.md").write_text(card, encoding="utf-8")

    def saved(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        for reporter in self.reporters:
            reporter.saved(checkpoint)

    def evaluated(self, trainer) -> dict[str, Any]:
        """Return the scores of generated answers as metrics, if the run has them. Before the first step and after the
        last one, and at each evaluation if a reporter shows them, also generate the answers that are shown."""
        step = trainer.state.global_step
        scores: dict[str, Any] = {}
        if self.generated is not None:
            with trainer.accelerator.autocast():
                scores = self.generated(trainer.model, step, _is_sharded(trainer))
        # The other processes have no reporters.
        wanted = self.cpu_group.any(any(reporter.shows_answers for reporter in self.reporters))
        if wanted or step in (0, trainer.state.max_steps):
            self.answer_for_report(trainer)
        return scores

    def answer_for_report(self, trainer) -> None:
        """Generate the answers that the report and trackers show, as far as they are not those that were scored."""
        step, sharded = trainer.state.global_step, _is_sharded(trainer)
        if not (self.writes or sharded) or step == self.answered_at:
            return
        self.answered_at = step
        assert self.shown is not None
        with trainer.accelerator.autocast():
            answered = self.shown(trainer.model, step, sharded)
        stored = {place_of(row): row for row in self.predictions}
        when: Literal["before", "after"] = "after" if step else "before"
        self.predictions = [prediction(row, when, stored.get(place_of(row))) for row in answered]
        if self.writes:
            RunFolder(self.info.folder).write_predictions(self.predictions)
            for reporter in self.reporters if self.predictions else ():
                reporter.answered(step, self.predictions)

    def best(self) -> dict[str, Any] | None:
        """Return the best checkpoint on disk by train.best_metric, with the metrics of the evaluation at its step, or
        None if no checkpoint has a score."""
        metric = self.info.config["train"]["best_metric"]
        best = best_of(saved(self.info.folder / "checkpoints"), metric)
        if best is None:
            return None
        found = {"metric": metric, "step": step_of(best.checkpoint), "checkpoint": best.checkpoint}
        return found | evaluation_in(best.checkpoint)

    def finish(self, status: str, totals: dict[str, float], reason: str | None = None) -> Path | None:
        """Write the summary and the report. Return the report's path on the main process, and None on the others.
        `totals` are the meter's."""
        if not self.writes:
            return None
        before, after = before_and_after(read_metrics(self.info.folder))
        summary = {
            "status": status,
            "reason": reason,
            "steps": totals["step"],
            "samples": totals["samples"],
            "tokens": totals["tokens"],
            "skipped": len(self.skipped),
            "skipped_steps": totals.get("skipped_steps", 0),
            "seconds": totals["seconds"],
            "metrics": {"before": before, "after": after},
            "best": self.best(),
            "checkpoint": self.checkpoint,
        }
        RunFolder(self.info.folder).write_summary(summary)
        report = write_report(self.info.folder)
        for reporter in self.reporters:
            reporter.finish(summary)
        return report


def _is_sharded(trainer) -> bool:
    from transformers.integrations import is_deepspeed_zero3_enabled

    return trainer.is_deepspeed_enabled and is_deepspeed_zero3_enabled()
