"""Counts the samples that are not trained on, lists them with the reason, and limits their number."""

import json
from collections.abc import Sequence
from pathlib import Path

from qwenvl_train.data.index.lengths import Problem, TooMany, refuse_many
from qwenvl_train.errors import UserError
from qwenvl_train.training.distributed.cpu_group import CpuGroup


class UnusableRows(UserError):
    """Error that all processes raise at the same time."""


class Skipped:
    """The problems of samples that are left out. Every process has one such object.

    Every process knows the samples that were left out when data was measured. Of a sample that cannot be decoded, only
    the process that encountered it knows until `share` is called.
    """

    def __init__(self, before: Sequence[Problem], most: int, fatal: bool, file: Path, resumed: bool):
        """At most `most` samples may be left out. With `fatal`, the first one that cannot be decoded ends the run
        nevertheless."""
        text = file.read_text(encoding="utf-8") if resumed and file.is_file() else ""
        # A killed run may have left an incomplete last line. Its problem will be encountered again.
        stored = text[: text.rfind("\n") + 1].splitlines()
        self._known = set(before) | {Problem(**json.loads(line)) for line in stored}
        self._most, self._fatal, self._file = most, fatal, file
        self._unshared: list[Problem] = []
        refuse_many(self._known, most)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def unshared(self) -> int:
        """Number of problems that only this process knows."""
        return len(self._unshared)

    def write(self) -> None:
        """Write the list at the start of the run, on the main process. An empty list is written too, because it says
        more than a missing file."""
        self._file.write_text("".join(map(_line, sorted(self._known, key=_place))), encoding="utf-8")

    def record(self, problems: Sequence[Problem]) -> None:
        """Record problems that this process encountered. Each is recorded once, though every epoch encounters it."""
        self._unshared += [problem for problem in dict.fromkeys(problems) if problem not in self._known]

    def share(self, cpu_group: CpuGroup, writes: bool) -> None:
        """Exchange the new problems of all processes, which must call this together. The process with `writes` appends
        them to the list. Raise UnusableRows if a new problem is fatal or if there are too many."""
        new = [problem for problem in dict.fromkeys(cpu_group.everything(self._unshared)) if problem not in self._known]
        self._unshared = []
        if self._fatal and new:
            raise UnusableRows(new[0].reason)
        self._known.update(new)
        if writes:
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(map(_line, new))
        try:
            refuse_many(self._known, self._most)
        except TooMany as error:
            raise UnusableRows(str(error)) from None


def _place(problem: Problem) -> tuple[str, int]:
    return problem.source, problem.line


def _line(problem: Problem) -> str:
    return json.dumps(problem.as_dict(), ensure_ascii=False) + "\n"
