"""Finding objects: boxes and points with labels, all objects or those that a text means."""

from qwenvl_train.tasks.converter import Task
from qwenvl_train.tasks.grounding.coco import COCO
from qwenvl_train.tasks.grounding.refcoco import REFCOCO
from qwenvl_train.tasks.grounding.regions import FORMS
from qwenvl_train.tasks.grounding.yolo import YOLO

TASK = Task("grounding", (COCO, REFCOCO, YOLO), FORMS)
