"""Tables of answers and models in the form that W&B takes."""

import re
from pathlib import Path
from typing import Any

from qwenvl_train.reporting.pictures import Shape
from qwenvl_train.reporting.reporter import Row
from qwenvl_train.reporting.tracking import TrackedAnswer

KINDS = ("expected", "before", "after", "answer")
"""The kinds of boxes and points over a picture, which W&B can show and hide. Their index is W&B's class."""
_ONLY_TO_RESUME = re.compile(
    r"global_step|latest$|optimizer|scheduler|scaler|rng_state|training_args|trainer_state|zero_to_fp32|progress.json|"
    r"stream.json|SHA256SUMS"
)
"""The beginnings of the names of files in a checkpoint that no artifact has."""
_DOT = 0.01
"""Half the width of the box that W&B shows instead of a point, as a share of the width of the picture."""


def artifact_of(name: str, folder: Path, metadata: Row) -> Any:
    """Return a folder with a model as an artifact of W&B, without what only resuming needs."""
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name), type="model", metadata=metadata)
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not _ONLY_TO_RESUME.match(str(file.relative_to(folder))):
            artifact.add_file(str(file), str(file.relative_to(folder)), skip_cache=True)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder.name} was deleted by train.keep before all of it was read")
    return artifact


def table_of_answers(answers: list[TrackedAnswer]) -> Any:
    """Return a W&B table with a row for each answer. Boxes and points are drawn over the first picture."""
    import wandb

    pictures = max((len(answer.pictures) for answer in answers), default=0)
    named = ["picture", *(f"picture {number}" for number in range(2, pictures + 1))][:pictures]
    pairs = any(answer.rejected is not None for answer in answers)
    given = list(dict.fromkeys(when for answer in answers for when in answer.answers))
    texts = ["prompt", *(["chosen", "rejected"] if pairs else ["expected"]), *given]
    clips = ["video"] if any(answer.videos for answer in answers) else []
    judged = ["right", *(["changed"] if "after" in given else [])]
    scores = list(dict.fromkeys(name for answer in answers for name in answer.scores))
    table = wandb.Table(columns=["sample", *named, *clips, *texts, *judged, *scores])
    for answer in answers:
        images = [
            wandb.Image(picture, boxes=_boxes(answer.shapes) if number == 0 else None)
            for number, picture in enumerate(answer.pictures)
        ]
        video = [wandb.Video(str(answer.videos[0]), format=answer.videos[0].suffix[1:]) if answer.videos else None]
        row = [answer.sample, *images, *[None] * (pictures - len(images)), *(video if clips else []), answer.prompt]
        row += [answer.expected, *([answer.rejected] if pairs else []), *(answer.answers.get(when) for when in given)]
        row += [getattr(answer, name) for name in judged]
        table.add_data(*row, *(answer.scores.get(name) for name in scores))
    return table


def _boxes(shapes: list[Shape]) -> dict[str, Any] | None:
    """Return boxes and points in W&B's form, in groups that can be shown and hidden."""
    groups: dict[str, Any] = {}
    for shape in shapes:
        group = groups.setdefault(shape.kind, {"box_data": [], "class_labels": dict(enumerate(KINDS))})
        around = _DOT if shape.point else 0
        group["box_data"].append(
            {
                "position": {
                    "minX": shape.left - around,
                    "maxX": shape.left + shape.width + around,
                    "minY": shape.top - around,
                    "maxY": shape.top + shape.height + around,
                },
                "class_id": KINDS.index(shape.kind),
                "box_caption": shape.name,
            }
        )
    return groups or None
