"""What trackers (W&B, TensorBoard) receive from a run: names of metrics in sections, and answers with pictures.

Trackers group charts by the part of a name before its first slash.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from qwenvl_train.config.best import GENERATED
from qwenvl_train.config.flat import flat
from qwenvl_train.reporting.pictures import Shape, opened, shape, smaller
from qwenvl_train.reporting.recorded import is_right
from qwenvl_train.reporting.reporter import NO_FORECAST, Forecast, Row, is_evaluation

SECTIONS = {
    "optimizer": ("lr", "grad_norm", "update_ratio"),
    "speed": (
        "tokens_per_second",
        "supervised_tokens_per_second",
        "samples_per_second",
        "images_per_second",
        "step_seconds",
        "tflops_per_device",
        "mfu",
        "data_wait",
        "pack_fill",
        "memory_gib",
        "save_seconds",
    ),
    "progress": ("epoch", "samples", "tokens", "supervised_tokens", "seconds", "skipped_steps"),
}
"""The metrics of each section, by the beginnings of their names. Other metrics of training steps are in the section
train. Those of evaluations are in eval, and the scores of generated answers in scores."""
ALL_SECTIONS = (*SECTIONS, "train", "eval", "scores", "plan", "answers", "data")

VIDEOS = (".mp4", ".webm", ".ogg", ".gif")
VIDEO_BYTES = 32 * 2**20
LENGTHS = "data/sequence_lengths"
"""The name of the histogram of the lengths of the training samples."""
SIDE = 768
"""The longest side of a picture in a tracker, in pixels."""


def tracked(row: Row, forecast: Forecast = NO_FORECAST) -> Row:
    """Return the figures of a row of metrics.jsonl with the names that trackers show. Beside those of training, there
    are those of the forecast, so that a chart has both."""
    found = {_name(key): value for key, value in flat(row, "/").items() if key != "step"}
    if not is_evaluation(row):
        found |= {f"plan/{key}": value for key, value in asdict(forecast).items()}
    return {name: value for name, value in found.items() if value is not None}


def _name(key: str) -> str:
    if key.startswith(GENERATED):
        return "scores/" + key.removeprefix(GENERATED)
    if key.startswith("eval_"):
        return "eval/" + key.removeprefix("eval_")
    for section, names in SECTIONS.items():
        if any(key == name or key.startswith(f"{name}_") for name in names):
            return f"{section}/{key}"
    return f"train/{key}"


@dataclass(frozen=True)
class TrackedAnswer:
    """A held-out sample with the model's answers."""

    sample: str
    prompt: str
    expected: str
    rejected: str | None
    answers: dict[str, str | None]
    """The answers by time, before training and after it, or the one of an evaluation."""
    pictures: list[Image.Image]
    """The pictures that can be read, at most SIDE pixels wide and high."""
    videos: list[Path]
    """The video files that browsers play and that are not too large."""
    shapes: list[Shape]
    """Boxes and points over the first picture, as shares of its width and height."""
    scores: dict[str, float]
    """The scores by metric and time, such as "anls before". Those of an evaluation have the names of the metrics."""
    right: bool | None
    """Whether the newest answer is right."""

    @property
    def changed(self) -> bool | None:
        """Whether training has changed the answer."""
        before, after = self.answers.get("before"), self.answers.get("after")
        return None if before is None or after is None else before != after


def tracked_answers(rows: Sequence[Row]) -> list[TrackedAnswer]:
    """Return what trackers show of the rows of predictions.jsonl."""
    ids = Counter(row["id"] for row in rows)
    return [_answer(row, named=bool(row["id"]) and ids[row["id"]] == 1) for row in rows]


def _answer(row: Row, named: bool) -> TrackedAnswer:
    """Return what trackers show of a row. It is called by its id if it is `named`, and else by its place."""
    pictures = [picture for path in row["images"] if path and (picture := opened(path))]
    shapes = []
    if pictures and row["images"][0]:
        width, height = pictures[0].size
        for kind, regions in (row.get("regions") or {}).items():
            shapes += [_scaled(shape(kind, region), width, height) for region in regions]
    answers = {when: row.get(when) for when in (("answer",) if "answer" in row else ("before", "after"))}
    given = [when for when, answer in answers.items() if answer is not None]
    turn = row.get("turn", 1)
    place = f"{Path(row['source']).name}:{row['line']}" + (f" turn {turn}" if turn > 1 else "")
    return TrackedAnswer(
        row["id"] if named else place,
        row["prompt"],
        row["expected"],
        row.get("rejected"),
        answers,
        [smaller(picture, SIDE) for picture in pictures],
        [Path(video) for video in row.get("videos", ()) if _can_be_shown(video)],
        shapes,
        _scores(row),
        is_right(row, given[-1]) if given else None,
    )


def _scores(row: Row) -> dict[str, float]:
    """Return the scores of both answers, those of a metric beside each other."""
    of = {when: found for when, found in (row.get("scores") or {}).items() if found}
    metrics = dict.fromkeys(metric for found in of.values() for metric in found)
    named = {when: "" if when == "answer" else f" {when}" for when in of}
    return {f"{metric}{named[when]}": of[when][metric] for metric in metrics for when in of if metric in of[when]}


def _can_be_shown(video: object) -> bool:
    """Return whether a video of a row can be shown: not one that is given as frames, or inside the data file."""
    if not isinstance(video, str) or Path(video).suffix.lower() not in VIDEOS:
        return False
    return (path := Path(video)).is_file() and path.stat().st_size <= VIDEO_BYTES


def _scaled(found: Shape, width: int, height: int) -> Shape:
    return Shape(
        found.kind,
        found.name,
        found.left / width,
        found.top / height,
        found.width / width,
        found.height / height,
        found.point,
    )
