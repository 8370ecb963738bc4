"""Convert raw rows, in any accepted format, to Samples."""

from qwenvl_train.data.formats.convert import row_id, to_sample
from qwenvl_train.data.formats.detect import Detected, detect
from qwenvl_train.data.formats.questions import Reference, typed_question, with_answer
from qwenvl_train.data.formats.renaming import renamed

__all__ = ["Detected", "Reference", "detect", "renamed", "row_id", "to_sample", "typed_question", "with_answer"]
