"""The row of an image with a class or a caption."""

from collections.abc import Sequence
from pathlib import Path

from qwenvl_train.tasks.converter import Raw, RowOptions
from qwenvl_train.tasks.rows import answer_row


def row_of_class(
    key: str, image: Path, label: str, classes: Sequence[str], options: RowOptions, others: Sequence[str] = ()
) -> Raw:
    """Return the row of an image.

    Args:
        key: The id of the row.
        label: The class as the source names it, or the caption.
        classes: The names of all classes, which stand for {classes} in a prompt.
        others: Further right answers.
    """
    question = options.prompts.ask(key, classes=", ".join(classes))
    answers = [*options.other_names(label), *others]
    return answer_row(key, image, question, options.named(label), answers=answers)
