"""Judges rows: asks an engine what is not stored yet, and reads its figures as classes, scores and gains."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qwenvl_train.curation.judging.classes import ClassOfRow, Tree
from qwenvl_train.curation.judging.engine import Engine
from qwenvl_train.curation.judging.prompts import (
    Choice,
    Figures,
    PictureGain,
    Prompt,
    Reward,
    class_choice,
    expected_score,
    most_likely,
    score_choice,
)
from qwenvl_train.curation.judging.settings import JudgingSections
from qwenvl_train.curation.judging.store import JudgementStore
from qwenvl_train.curation.judging.stored import StoredFigures
from qwenvl_train.curation.view import RowView


@dataclass(frozen=True)
class PictureUse:
    """How likely a row's answers are with and without its pictures."""

    with_picture: float
    """The mean log-probability of the tokens of the answers."""
    without_picture: float
    """The same in the conversation without its pictures and videos."""

    @property
    def gain(self) -> float:
        return self.with_picture - self.without_picture


@dataclass(frozen=True)
class Judgement:
    """What a model says about a row."""

    assigned: ClassOfRow | None = None
    """The most likely class of the most likely domain. None if classes are not asked for, or if the class is less
    probable than `min_probability`."""
    scores: dict[str, float] = field(default_factory=dict)
    image_use: PictureUse | None = None
    """None if it is not asked for, or if the row has no pictures, or boxes or points in them."""
    problem: str | None = None
    """Why the row was not judged."""


class Judge(Protocol):
    @property
    def identity(self) -> str:
        """A string that changes when the judgements may, given the same settings."""

    def judge(self, rows: Sequence[RowView]) -> list[Judgement]:
        """Return the judgement of each row. Whatever was computed is stored, also if an error ends the call."""


class StoredJudge:
    """A judge that asks its engine only what is not stored."""

    def __init__(self, engine: Engine, sections: JudgingSections, tree: Tree, store: JudgementStore):
        self._engine, self._sections, self._store = engine, sections, store
        self._tree = tree if sections.classes.use != "off" else {}
        self._domains = {domain: ", ".join(classes) for domain, classes in self._tree.items()}

    @property
    def identity(self) -> str:
        return self._engine.identity

    def judge(self, rows: Sequence[RowView]) -> list[Judgement]:
        stored = StoredFigures(self._engine, self._store, [row.sample.chosen_conversation for row in rows])
        problems = stored.problems
        wanted = {number: self._prompts(row) for number, row in enumerate(rows) if number not in problems}
        found = stored.ask(wanted)
        if self._tree and not self._engine.all_at_once:
            second: dict[int, tuple[Prompt, ...]] = {
                number: (self._class_choice(self._domain(found[number])),)
                for number in wanted
                if number not in problems
            }
            for number, more in stored.ask(second).items():
                found[number].update(more)
        return [
            Judgement(problem=problems[number]) if number in problems else self._judgement(row, found[number])
            for number, row in enumerate(rows)
        ]

    def _prompts(self, row: RowView) -> tuple[Prompt, ...]:
        """Return what is asked about a row, except for the class if only that of one domain is asked for."""
        prompts: list[Prompt] = list(self._score_prompts(row).values())
        if self._tree:
            prompts.append(self._domain_choice())
            if self._engine.all_at_once:
                prompts += map(self._class_choice, self._tree)
        if self._sections.needless_image.use != "off" and has_plain_pictures(row):
            prompts.append(PictureGain())
        return tuple(dict.fromkeys(prompts))

    def _score_prompts(self, row: RowView) -> dict[str, Prompt]:
        if self._sections.scores.use == "off":
            return {}
        by_head = self._sections.judge.engine == "reward_head"
        return {
            name: Reward() if score.prompt is None else score_choice(score.prompt)
            for name, score in self._sections.scores.each.items()
            if (score.prompt is None) == by_head and (row.sample.chosen_conversation.media or not score.images_only)
        }

    def _domain_choice(self) -> Choice:
        return class_choice(self._sections.classes.prompt, self._domains)

    def _class_choice(self, domain: str) -> Choice:
        descriptions = {name: one.description for name, one in self._tree[domain].items()}
        return class_choice(self._sections.classes.prompt, descriptions)

    def _domain(self, figures: dict[Prompt, Figures]) -> str:
        return list(self._tree)[most_likely(figures[self._domain_choice()])[0]]

    def _judgement(self, row: RowView, figures: dict[Prompt, Figures]) -> Judgement:
        scores = {
            name: figures[prompt][0] if isinstance(prompt, Reward) else expected_score(figures[prompt])
            for name, prompt in self._score_prompts(row).items()
        }
        gain = figures.get(PictureGain())
        return Judgement(
            self._assigned(figures) if self._tree else None, scores, None if gain is None else PictureUse(*gain)
        )

    def _assigned(self, figures: dict[Prompt, Figures]) -> ClassOfRow | None:
        domain = self._domain(figures)
        _, of_domain = most_likely(figures[self._domain_choice()])
        number, of_class = most_likely(figures[self._class_choice(domain)])
        found = ClassOfRow(domain, list(self._tree[domain])[number], of_domain * of_class)
        return found if found.probability >= self._sections.classes.min_probability else None


def has_plain_pictures(row: RowView) -> bool:
    """Return whether a row has pictures or videos, and neither boxes nor points in them."""
    conversation = RowView(row.sample.chosen_conversation)
    return bool(conversation.sample.media) and not conversation.regions
