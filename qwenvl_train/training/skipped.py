"""Which samples are not trained on, and why: counted, listed, bounded."""

import json
from collections.abc import Sequence
from pathlib import Path

from qwenvl_train.data.index.lengths import Problem, TooMany, refuse_many
from qwenvl_train.errors import UserError
from qwenvl_train.training.distributed.cpu_group import CpuGroup


class UnusableRows(UserError):
    """Raised by all processes at once."""


class Skipped:
    """One on every process. What the index left out is known to all; what does not decode, to the one that met it
    until it is shared."""

    def __init__(self, before: Sequence[Problem], most: int, fatal: bool, file: Path, resumed: bool):
        """`most` rows may be left out; with `fatal`, the first that does not decode ends the run nevertheless."""
        text = file.read_text(encoding="utf-8") if resumed and file.is_file() else ""
        # A killed run may have left half a line; what it told is met again.
        stored = text[: text.rfind("\n") + 1].splitlines()
        self._seen = set(before) | {Problem(**json.loads(line)) for line in stored}
        self._most, self._fatal, self._file = most, fatal, file
        self._unsaid: list[Problem] = []
        refuse_many(self._seen, most)

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def unsaid(self) -> int:
        """How many this process alone has met."""
        return len(self._unsaid)

    def write(self) -> None:
        """The list at the start of the run; an empty one says more than none. On the main process."""
        self._file.write_text("".join(map(_line, sorted(self._seen, key=_place))), encoding="utf-8")

    def met(self, problems: Sequence[Problem]) -> None:
        """Each is told once, though every epoch meets it again."""
        self._unsaid += [problem for problem in dict.fromkeys(problems) if problem not in self._seen]

    def share(self, cpu_group: CpuGroup, writes: bool) -> None:
        """All processes come here together; one of them `writes`."""
        new = [problem for problem in dict.fromkeys(cpu_group.everything(self._unsaid)) if problem not in self._seen]
        self._unsaid = []
        if self._fatal and new:
            raise UnusableRows(new[0].reason)
        self._seen.update(new)
        if writes:
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(map(_line, new))
        try:
            refuse_many(self._seen, self._most)
        except TooMany as error:
            raise UnusableRows(str(error)) from None


def _place(problem: Problem) -> tuple[str, int]:
    return problem.source, problem.line


def _line(problem: Problem) -> str:
    return json.dumps(problem.as_dict(), ensure_ascii=False) + "\n"
