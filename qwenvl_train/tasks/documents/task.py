"""Reading pages of documents: their elements in Qwen's HTML, with a box for each, or in its Markdown."""

from qwenvl_train.tasks.converter import Task
from qwenvl_train.tasks.documents.layout import LAYOUT
from qwenvl_train.tasks.documents.omnidocbench import OMNIDOCBENCH
from qwenvl_train.tasks.documents.page import FORMS

TASK = Task("documents", (OMNIDOCBENCH, LAYOUT), FORMS)
