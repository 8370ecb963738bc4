"""The results of drawn answers: the files in sample.to, and their figures."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.scoring import Chosen
from qwenvl_train.files import replacing
from qwenvl_train.reporting.folder import json_line, plain, write_json_atomic, write_json_lines_atomic
from qwenvl_train.verbs.sample.answers import DrawnAnswers
from qwenvl_train.verbs.sample.judging import NOT_JUDGED, USE, Judged, judge
from qwenvl_train.verbs.sample.writing import QuestionRows, rows_of


@dataclass
class Figures:
    """What is counted of questions and of the rows that come of them."""

    questions: int = 0
    right: int = 0
    """Number of answers with a right result, with and without faults."""
    solved: Counter[int] = field(default_factory=Counter)
    """Number of questions by how many of their answers are right and without faults."""
    faults: Counter[str] = field(default_factory=Counter)
    """Number of answers with each fault."""
    thoughts_judged: int = 0
    """Number of answers whose thoughts a model has judged."""
    thoughts_not_judged: int = 0
    not_judged_because: str | None = None
    """Why the first of them could not be judged."""
    sft: int = 0
    pairs: int = 0
    unsolved: int = 0
    outside: int = 0
    """Number of solved questions whose pass rate is not in sample.pass_rate."""
    problems: list[Problem] = field(default_factory=list)
    """Rows that could not be used."""

    def add(self, one: Judged, rows: QuestionRows) -> None:
        self.questions += 1
        self.solved[sum(answer.solves for answer in one.tries)] += 1
        for row in one.rows:
            self.right += row["right"]
            self.faults.update(fault.partition(":")[0] for fault in dict.fromkeys(row["faults"]))
            self.thoughts_judged += USE in row
            for mark in row["marks"]:
                if mark.startswith(NOT_JUDGED):
                    self.thoughts_not_judged += 1
                    self.not_judged_because = self.not_judged_because or mark.removeprefix(f"{NOT_JUDGED}: ")
        self.sft += len(rows.sft)
        self.pairs += len(rows.pairs)
        self.unsolved += len(rows.unsolved)
        self.outside += rows.outside
        self.problems += [rows.problem] if rows.problem else []


@dataclass(frozen=True)
class Results:
    drawn: DrawnAnswers
    chosen: dict[str, Chosen]
    """The metrics of each entry of data.train."""
    figures: Figures

    @property
    def pass_rate(self) -> float:
        """The share of answers that are right and without faults."""
        solving = sum(number * questions for number, questions in self.figures.solved.items())
        return solving / len(self.drawn.answers)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data, as summary.json and output=json have them."""
        drawn, figures = self.drawn, self.figures
        return plain(
            {
                "model": drawn.model,
                "questions": figures.questions,
                "answers": len(drawn.answers),
                "generated": drawn.generated,
                "seconds": round(drawn.seconds, 3),
                "right": figures.right,
                "pass_rate": round(self.pass_rate, 6),
                "questions_by_right_answers": {str(key): number for key, number in sorted(figures.solved.items())},
                "faults": dict(figures.faults),
                "thoughts_judged": figures.thoughts_judged,
                "thoughts_not_judged": figures.thoughts_not_judged,
                "metrics": {entry: {"names": one.metrics, "reason": one.reason} for entry, one in self.chosen.items()},
                "sft": figures.sft,
                "pairs": figures.pairs,
                "unsolved": figures.unsolved,
                "outside_pass_rate": figures.outside,
                "skipped": len(figures.problems),
                "folder": drawn.folder.path,
            }
        )


def results_of(drawn: DrawnAnswers) -> Results:
    """Judge the answers, and write all files, question by question."""
    if not len(drawn.answers):
        raise UserError(f"data.train: no row could be answered; the first problem: {drawn.problems[0].reason}")
    folder, figures = drawn.folder, Figures(problems=list(drawn.problems))
    questions, chosen = judge(drawn)
    with (
        folder.finishing() as add_answers,
        _file(folder.path / "sft.jsonl") as add_sft,
        _file(folder.path / "pairs.jsonl") as add_pairs,
        _file(folder.path / "unsolved.jsonl") as add_unsolved,
    ):
        for one in questions:
            rows = rows_of(one, drawn)
            add_answers(one.rows)
            add_sft(rows.sft)
            add_pairs(rows.pairs)
            add_unsolved(rows.unsolved)
            figures.add(one, rows)
        write_json_lines_atomic(folder.path / "skipped.jsonl", [problem.as_dict() for problem in figures.problems])
    results = Results(drawn, chosen, figures)
    write_json_atomic(folder.path / "summary.json", results.as_dict())
    return results


@contextmanager
def _file(path: Path) -> Iterator[Callable[[Iterable[dict[str, Any]]], None]]:
    """Yield a function that adds rows to a file, which appears as a whole when the block ends."""
    with replacing(path, sync=True) as file:
        yield lambda rows: file.writelines(json_line(row).encode() for row in rows)
