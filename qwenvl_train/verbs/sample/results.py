"""The results of drawn answers: the files in sample.to, and their figures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.scoring import Chosen
from qwenvl_train.reporting.folder import plain, write_json_atomic, write_json_lines_atomic
from qwenvl_train.verbs.sample.answers import DrawnAnswers
from qwenvl_train.verbs.sample.judging import NOT_JUDGED, USE, Judged, judge
from qwenvl_train.verbs.sample.policies import pass_rate
from qwenvl_train.verbs.sample.writing import Written, rows_of


@dataclass(frozen=True)
class Results:
    drawn: DrawnAnswers
    judged: list[Judged]
    chosen: dict[str, Chosen]
    """The metrics of each entry of data.train."""
    written: Written

    @property
    def problems(self) -> list[Problem]:
        return [*self.drawn.problems, *self.written.problems]

    def faults(self) -> Counter[str]:
        """Return how many answers have each fault."""
        return Counter(
            fault.partition(":")[0] for one in self.judged for row in one.rows for fault in dict.fromkeys(row["faults"])
        )

    def thoughts_judged(self) -> int:
        """Return the number of answers whose thoughts a model has judged."""
        return sum(USE in row for one in self.judged for row in one.rows)

    def thoughts_not_judged(self) -> list[str]:
        """Return why a model could not judge thoughts, for each answer."""
        marks = (mark for one in self.judged for row in one.rows for mark in row["marks"])
        return [mark.removeprefix(f"{NOT_JUDGED}: ") for mark in marks if mark.startswith(NOT_JUDGED)]

    def solved(self) -> Counter[int]:
        """Return the number of questions by how many of their answers are right and without faults."""
        return Counter(sum(one.solves for one in question.tries) for question in self.judged)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data, as summary.json and output=json have them."""
        drawn, written = self.drawn, self.written
        rates = [pass_rate(one.tries) for one in self.judged]
        return plain(
            {
                "model": drawn.model,
                "questions": len(self.judged),
                "answers": len(drawn.rows),
                "generated": drawn.generated,
                "seconds": round(drawn.seconds, 3),
                "right": sum(row["right"] for one in self.judged for row in one.rows),
                "pass_rate": round(sum(rates) / len(rates), 6),
                "questions_by_right_answers": {str(key): number for key, number in sorted(self.solved().items())},
                "faults": dict(self.faults()),
                "thoughts_judged": self.thoughts_judged(),
                "thoughts_not_judged": len(self.thoughts_not_judged()),
                "metrics": {entry: {"names": one.metrics, "reason": one.reason} for entry, one in self.chosen.items()},
                "sft": len(written.sft),
                "pairs": len(written.pairs),
                "unsolved": len(written.unsolved),
                "outside_pass_rate": written.outside,
                "skipped": len(self.problems),
                "folder": drawn.folder.path,
            }
        )


FILES = ("sft.jsonl", "pairs.jsonl", "unsolved.jsonl", "skipped.jsonl")


def results_of(drawn: DrawnAnswers) -> Results:
    """Judge the answers, and write all files."""
    if not drawn.rows:
        raise UserError(f"data.train: no row could be answered; the first problem: {drawn.problems[0].reason}")
    questions, chosen = judge(drawn)
    judged = list(questions)
    results = Results(drawn, judged, chosen, rows_of(judged, drawn))
    written, problems = results.written, [problem.as_dict() for problem in results.problems]
    contents: Sequence[list[dict[str, Any]]] = (written.sft, written.pairs, written.unsolved, problems)
    for name, rows in zip(FILES, contents, strict=True):
        write_json_lines_atomic(drawn.folder.path / name, rows)
    drawn.folder.finish([row for one in judged for row in one.rows])
    write_json_atomic(drawn.folder.path / "summary.json", results.as_dict())
    return results
