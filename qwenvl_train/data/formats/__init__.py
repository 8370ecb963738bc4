"""Convert raw rows, in any accepted format, to Samples."""

from qwenvl_train.data.formats.convert import row_id, to_sample
from qwenvl_train.data.formats.detect import Detected, detect

__all__ = ["Detected", "detect", "row_id", "to_sample"]
