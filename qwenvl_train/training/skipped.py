"""Which samples are not trained on, and why: counted, listed, bounded."""

import json
from collections.abc import Sequence
from pathlib import Path

from qwenvl_train.data.lengths import Problem
from qwenvl_train.errors import UserError


class Skipped:
    """One on every process. What the index left out is known to all; what does not decode, to the one that met it."""

    def __init__(self, before: Sequence[Problem], most: int, file: Path, resumed: bool):
        stored = file.read_text(encoding="utf-8").splitlines() if resumed and file.is_file() else []
        self._seen = set(before) | {Problem(**json.loads(line)) for line in stored}
        self._most, self._file = most, file
        self._refuse_many()

    def write(self) -> None:
        """The list at the start of the run; an empty one says more than none. On the main process."""
        self._file.write_text("".join(map(_line, sorted(self._seen, key=_place))), encoding="utf-8")

    def add(self, problems: Sequence[Problem]) -> None:
        """Each is told once, though every epoch meets it again."""
        new = [problem for problem in problems if problem not in self._seen]
        if not new:
            return
        self._seen.update(new)
        with self._file.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, new))
        self._refuse_many()

    def listed(self) -> int:
        """By all processes."""
        return len(self._file.read_text(encoding="utf-8").splitlines())

    def _refuse_many(self) -> None:
        if len(self._seen) > self._most:
            last = max(self._seen, key=_place)
            raise UserError(
                f"{len(self._seen)} rows cannot be used, data.max_skipped allows {self._most}; "
                f"one of them: {last.reason}"
            )


def _place(problem: Problem) -> tuple[str, int]:
    return problem.source, problem.line


def _line(problem: Problem) -> str:
    return json.dumps(problem.as_dict(), ensure_ascii=False) + "\n"
