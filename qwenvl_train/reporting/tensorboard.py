"""Reporting to TensorBoard, in the folder tensorboard/ of the run folder."""

from typing import Any

import numpy as np
from PIL import ImageDraw

from qwenvl_train.config.flat import flat
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.reporter import Lengths, Reporter, Row, RunInfo
from qwenvl_train.reporting.tracking import LENGTHS, TrackedAnswer, tracked, tracked_answers
from qwenvl_train.reporting.wording import is_number

FOLDER = "tensorboard"
COLORS = {"expected": "#1a9850", "before": "#8a8a8a", "after": "#d73027"}


class TensorBoardRun(Reporter):
    """A reporter that writes the metrics, the settings and the answers of a run for TensorBoard. It is built only with
    logging.tensorboard=true."""

    shows_answers = True

    def __init__(self) -> None:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise UserError(
                "logging.tensorboard=true needs the package tensorboard: pip install 'qwenvl-train[tensorboard]'"
            ) from None

    def start(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        # A resumed run repeats the steps after its checkpoint.
        purged = run.start_step + 1 if run.resumed else None
        self._forecast = run.forecast
        self._writer = SummaryWriter(run.folder / FOLDER, purge_step=purged)
        settings = {key: value if is_number(value) else str(value) for key, value in flat(run.config, "/").items()}
        # SummaryWriter.add_hparams would write them to a run of their own.
        for summary in hparams(settings, {"train/loss": 0, "eval/loss": 0}):
            self._writer.file_writer.add_summary(summary)

        if run.lengths is not None:
            self._add_histogram(run.lengths, run.start_step)

    def _add_histogram(self, lengths: Lengths, step: int) -> None:
        """Write how many samples have which length. Sums are those of the middles of the ranges."""
        counts, edges = np.array(lengths.counts), np.array(lengths.edges)
        middles = (edges[1:] + edges[:-1]) / 2
        self._writer.add_histogram_raw(
            LENGTHS,
            float(edges[0]),
            float(edges[-1]),
            int(counts.sum()),
            float((counts * middles).sum()),
            float((counts * middles**2).sum()),
            edges[1:].tolist(),
            counts.tolist(),
            step,
        )

    def log(self, row: Row) -> None:
        for name, value in tracked(row, self._forecast).items():
            if is_number(value) or isinstance(value, bool):
                self._writer.add_scalar(name, value, row["step"])

    def answered(self, step: int, rows: list[Row]) -> None:
        for answer in tracked_answers(rows):
            self._writer.add_text(f"answers/{answer.sample}", _in_markdown(answer), step)
            for number, picture in enumerate(answer.pictures, start=1):
                drawn = _drawn(answer) if number == 1 else np.asarray(picture)
                self._writer.add_image(f"answers/{answer.sample}/{number}", drawn, step, dataformats="HWC")
        self._writer.flush()

    def finish(self, summary: Row) -> None:
        self._writer.close()


def _in_markdown(answer: TrackedAnswer) -> str:
    """Return the answer as text, with each line indented, so that TensorBoard shows it as it is."""
    parts: list[tuple[str, Any]] = [
        ("prompt", answer.prompt),
        ("expected" if answer.rejected is None else "chosen", answer.expected),
        ("rejected", answer.rejected),
        ("before training", answer.answers["before"]),
        ("now", answer.answers["after"]),
        ("scores", ", ".join(f"{name} {value:.3g}" for name, value in answer.scores.items()) or None),
    ]
    blocks = []
    for heading, text in parts:
        if text is not None:
            blocks += [f"**{heading}**", "\n".join(f"    {line}" for line in (text or "(empty)").splitlines())]
    return "\n\n".join(blocks)


def _drawn(answer: TrackedAnswer) -> np.ndarray:
    """Return the first picture with the boxes and points of the answers over it."""
    picture = answer.pictures[0].copy()
    pen, (width, height) = ImageDraw.Draw(picture), picture.size
    for shape in answer.shapes:
        left, top = shape.left * width, shape.top * height
        color = COLORS.get(shape.kind, "black")
        if shape.point:
            pen.ellipse((left - 4, top - 4, left + 4, top + 4), outline=color, width=3)
        else:
            pen.rectangle((left, top, left + shape.width * width, top + shape.height * height), outline=color, width=3)
    return np.asarray(picture)
