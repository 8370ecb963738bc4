"""Reading text in images: lines, lines with boxes, and key information."""

from qwenvl_train.tasks.converter import Task
from qwenvl_train.tasks.ocr.cord import CORD
from qwenvl_train.tasks.ocr.reading import FORMS
from qwenvl_train.tasks.ocr.records import RECORDS
from qwenvl_train.tasks.ocr.sroie import SROIE

TASK = Task("ocr", (CORD, RECORDS, SROIE), FORMS)
