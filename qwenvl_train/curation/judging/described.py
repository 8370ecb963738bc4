"""What the judgements by a model are shown with."""

from qwenvl_train.curation.rules.rule import Described, Measure

CLASSES, SCORES, NEEDLESS_IMAGE = "classes", "scores", "needless_image"
DESCRIBED = (
    Described(SCORES, "scored too low by the model", False, measure=Measure("mean score, or the one that is too low")),
    Described(
        NEEDLESS_IMAGE, "the answer does not need the image", False,
        measure=Measure("gain in mean log-probability by the images"),
    ),
    Described(
        CLASSES, "of a class that is dropped, or over its limit", False,
        measure=Measure("probability of the class", "%"),
    ),
)  # fmt: skip
"""The judgements by a model."""
