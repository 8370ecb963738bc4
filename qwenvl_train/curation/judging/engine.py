"""What computes the figures of judgements: a model, a reward head, or an endpoint."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from qwenvl_train.curation.judging.prompts import Figures, Prompt
from qwenvl_train.data.sample import Sample


@dataclass(frozen=True)
class Asked:
    """A row, by a number, and what is to be asked about it."""

    number: int
    sample: Sample
    """One conversation, not a preference pair."""
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Answered:
    number: int
    figures: tuple[Figures, ...]
    """The figures of each prompt. Empty if there is a problem."""
    problem: str | None = None
    """Why the row cannot be judged."""


class Engine(Protocol):
    identity: str
    """A string that changes when the figures may."""
    all_at_once: bool
    """Whether further prompts about a row cost little while it is asked the first ones. If so, the classes of all
    domains are asked about together with the domain."""

    proven: bool
    """Whether it has answered such prompts before. An endpoint that refuses the first rows is then not taken to refuse
    all."""

    def answers(self, rows: Sequence[Asked]) -> Iterator[list[Answered]]:
        """Yield the figures of all rows, group by group and in any order. What was yielded is stored.

        Raises:
            UserError: If the judge cannot go on. A row that cannot be judged is a problem, not an error.
        """
