"""Convert raw rows, in any accepted format, to Samples."""

from qwenvl_train.data.formats.convert import row_id, to_sample
from qwenvl_train.data.formats.copying import copied_row, moved_row
from qwenvl_train.data.formats.detect import Detected, detect
from qwenvl_train.data.formats.questions import Reference, typed_question, with_answer
from qwenvl_train.data.formats.renaming import renamed

__all__ = [
    "Detected",
    "Reference",
    "copied_row",
    "detect",
    "moved_row",
    "renamed",
    "row_id",
    "to_sample",
    "typed_question",
    "with_answer",
]
