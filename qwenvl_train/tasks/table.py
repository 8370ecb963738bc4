"""The tasks by name. A new task is a package in this folder, an option of the group `task` in configs/, and one entry
here."""

from pkgutil import resolve_name

from qwenvl_train.tasks.converter import Task

TASKS = ("recognition", "documents", "grounding", "ocr", "video", "mobile_agent", "computer_use")


def load_task(name: str) -> Task:
    return resolve_name(f"{__package__}.{name}.task:TASK")
