"""Naming what is in an image: a class with other names that are right, too, or a caption."""

from qwenvl_train.tasks.converter import Task
from qwenvl_train.tasks.recognition.folders import FOLDERS
from qwenvl_train.tasks.recognition.tables import TABLES

TASK = Task("recognition", (TABLES, FOLDERS), forms=("name",))
