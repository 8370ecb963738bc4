"""Which rows are kept, and the verdicts that need other rows: near-duplicates, and classes over their limit."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qwenvl_train.curation.duplicates import PERMUTATIONS, Alike, Signatures, alike_rows
from qwenvl_train.curation.judging.classes import Tree, by_name, over_limit
from qwenvl_train.curation.judging.described import CLASSES, DESCRIBED
from qwenvl_train.curation.judging.settings import ClassSettings
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.data.samples import Samples
from qwenvl_train.verbs.filter.by_model import CLASS, MEAN_SCORE, model_rules
from qwenvl_train.verbs.filter.folder import FilterFolder
from qwenvl_train.verbs.filter.judged import (
    DUPLICATES,
    PICTURE_SIGNATURE,
    REST_SIGNATURE,
    TEXT_SIGNATURE,
    UNUSABLE,
    VALUE,
)
from qwenvl_train.verbs.filter.settings import FilterSection

_WORDS = ("question_words", "answer_words")


@dataclass(frozen=True)
class LateVerdicts:
    """The verdicts of a rule that need other rows, on the rows that fall. Their evidence is made when it is asked for,
    since there may be millions."""

    rows: np.ndarray
    """The rows, in order."""
    values: np.ndarray
    """The figure of each row."""
    evidence: Callable[[int], str]
    """Returns the evidence on the row in a place of `rows`."""

    def of(self, row: int) -> Verdict | None:
        """Return the verdict on a row, or None for a row that does not fall."""
        place = bisect_left(self.rows, row)
        if place == len(self.rows) or self.rows[place] != row:
            return None
        return Verdict(True, float(self.values[place]), self.evidence(place))


@dataclass(frozen=True)
class Outcome:
    rules: tuple[str, ...]
    """The names of the rules in the order in which they are applied, with `unusable` first."""
    falls: np.ndarray
    """[rows, rules] bool: whether the row falls to the rule."""
    drops: tuple[bool, ...]
    """Whether rows that fall to the rule are left out, for each rule."""
    words: np.ndarray
    """[rows, 2]: number of words of the questions and of the answers. -1 for a row that cannot be read."""
    late: Mapping[str, LateVerdicts] = field(default_factory=dict)
    """The verdicts that need other rows, by rule. All others are in the judgements of the folder."""
    classes: tuple[str, ...] = ()
    """The classes of rows, as domain/class."""
    class_of: np.ndarray | None = None
    """[rows]: index in `classes`, or -1 for a row without a class. None if rows have no classes."""

    @cached_property
    def kept(self) -> np.ndarray:
        """[rows] bool."""
        return ~falls_to_any(self.falls, self.drops)

    @property
    def by_model(self) -> bool:
        """Whether a model has judged rows."""
        return any(one.name in self.rules for one in DESCRIBED)

    def rules_of(self, row: int) -> list[str]:
        """Return the names of the rules that a row falls to."""
        return [rule for rule, falls in zip(self.rules, self.falls[row].tolist(), strict=True) if falls]

    def with_rule(self, rule: str, falls: np.ndarray, drops: bool, late: LateVerdicts | None = None) -> "Outcome":
        """Return the outcome with a further rule. `falls` is [rows] bool."""
        return replace(
            self,
            rules=(*self.rules, rule),
            falls=np.concatenate([self.falls, falls[:, None]], axis=1),
            drops=(*self.drops, drops),
            late={**self.late, **({rule: late} if late is not None else {})},
        )


def falls_to_any(falls: np.ndarray, drops: Sequence[bool]) -> np.ndarray:
    """Return whether each row falls to a rule that leaves it out, [rows] bool."""
    return np.logical_or.reduce(falls[:, np.array(drops)], axis=1)


def rules_in(section: FilterSection) -> tuple[str, ...]:
    """Return the names of the rules that judge a row alone, with `unusable` first."""
    return (UNUSABLE, *(rule.name for rule, _ in section.used))


def outcome_of_rules(samples: Samples, folder: FilterFolder, section: FilterSection) -> Outcome:
    """Return the outcome of the rules. Rows that fall to another rule are not compared with others, so that of rows
    that are nearly the same, the first one without another fault stays."""
    rules = rules_in(section)
    drops = (True, *(settings.use == "drop" for _, settings in section.used))
    falls, words = [], []
    for table in folder.by_rules.tables([*rules, *_WORDS]):
        falls.append(_falls(table, rules))
        words.append(np.stack([pc.fill_null(table[name], -1).to_numpy() for name in _WORDS], axis=1))
    outcome = Outcome(rules, np.concatenate(falls), drops, np.concatenate(words))
    if section.duplicates.use == "off":
        return outcome
    alike = alike_rows(_signatures(folder, ~outcome.kept), section.duplicates)
    duplicate = np.zeros(len(outcome.falls), dtype=bool)
    duplicate[alike.rows] = True
    by_images = section.duplicates.by == "images"
    values = alike.bits if by_images else alike.similarity
    late = LateVerdicts(alike.rows, values, lambda place: _in_common(samples, alike[place], by_images))
    return outcome.with_rule(DUPLICATES, duplicate, section.duplicates.use == "drop", late)


def with_judgements(
    outcome: Outcome, samples: Samples, folder: FilterFolder, section: FilterSection, tree: Tree, seed: int
) -> Outcome:
    """Return the outcome with the judgements by a model."""
    rules = model_rules(section)
    falls = np.concatenate([_falls(table, rules) for table in folder.by_model.tables(rules)])
    for rule, column in zip(rules, falls.T, strict=True):
        drops = getattr(section, rule).use == "drop"
        if rule == CLASSES:
            outcome = _with_classes(outcome, samples, _assigned(folder, tree), seed, column, drops)
        else:
            outcome = outcome.with_rule(rule, column, drops)
    return outcome


@dataclass(frozen=True)
class _Assigned:
    """The classes of all rows. Each column is [rows]."""

    settings: dict[str, ClassSettings]
    """The settings of each class, by domain/class."""
    class_of: np.ndarray
    """The number of the class in `settings`, or -1 for a row without a class."""
    probability: np.ndarray
    scores: np.ndarray
    """The mean of the scores of a row, or NaN."""


def _assigned(folder: FilterFolder, tree: Tree) -> _Assigned:
    settings, probability = by_name(tree), f"{CLASSES}.{VALUE}"
    names = pa.array(list(settings))
    columns: list[tuple[np.ndarray, ...]] = []
    for table in folder.by_model.tables([CLASS, probability, MEAN_SCORE]):
        numbers = pc.fill_null(pc.index_in(table[CLASS], names), -1)
        figures = (pc.fill_null(table[name], float("nan")).to_numpy() for name in (probability, MEAN_SCORE))
        columns.append((numbers.to_numpy(), *figures))
    return _Assigned(settings, *(np.concatenate(column) for column in zip(*columns, strict=True)))


def _with_classes(
    outcome: Outcome, samples: Samples, assigned: _Assigned, seed: int, falls: np.ndarray, drops: bool
) -> Outcome:
    """Return the outcome with the classes of the rows. Of those that no other rule leaves out, the rows over the limit
    of their class fall, too."""
    over = _over_limit(samples, np.flatnonzero(outcome.kept & ~falls), assigned, seed)
    falls = falls.copy()
    falls[over] = True
    late = LateVerdicts(over, assigned.probability[over], lambda place: _full(over[place], assigned))
    outcome = outcome.with_rule(CLASSES, falls, drops, late)
    return replace(outcome, classes=tuple(assigned.settings), class_of=assigned.class_of)


def _over_limit(samples: Samples, rows: np.ndarray, assigned: _Assigned, seed: int) -> np.ndarray:
    """Return those of some rows that are over the limit of their class, in order."""
    found = [np.zeros(0, dtype=np.int64)]
    for number, one in enumerate(assigned.settings.values()):
        if one.limit is not None:
            of_class = rows[assigned.class_of[rows] == number]
            keys = (samples.origin(int(row)) for row in of_class)
            found.append(of_class[over_limit(keys, assigned.scores[of_class], one.limit, seed)])
    return np.sort(np.concatenate(found))


def _full(row: int, assigned: _Assigned) -> str:
    name, settings = list(assigned.settings.items())[assigned.class_of[row]]
    return f"the class {name} has its limit of {settings.limit} rows"


def _falls(table: pa.Table, rules: Sequence[str]) -> np.ndarray:
    columns = [pc.fill_null(table[rule], False).to_numpy() for rule in rules]
    return np.stack(columns, axis=1)


def _in_common(samples: Samples, alike: Alike, by_images: bool) -> str:
    source, line = samples.origin(alike.first)
    first, bits = f"those of {source}:{line}", f"images differ in {alike.bits} of 64 bits"
    if by_images:
        return f"its {bits} from {first}"
    return f"{alike.similarity:.0%} of its word sequences are {first}{f', {bits}' if alike.pictures else ''}"


def _signatures(folder: FilterFolder, left_out: np.ndarray) -> Signatures:
    """Return the signatures of all rows. Those of texts are in a file, and take little memory."""
    rows, first = len(left_out), 0
    with TemporaryFile(dir=folder.path) as file:
        texts = np.memmap(file, np.uint32, "w+", shape=(rows, PERMUTATIONS))
    counts, pictures = np.full(rows, -1, dtype=np.int32), np.zeros((rows, 0), dtype=np.uint64)
    rest = np.zeros(rows, dtype=np.uint64)
    for table in folder.by_rules.tables([TEXT_SIGNATURE, PICTURE_SIGNATURE, REST_SIGNATURE]):
        rest[first : first + len(table)] = table[REST_SIGNATURE].to_numpy()
        of_pictures = table[PICTURE_SIGNATURE].combine_chunks()
        whole = of_pictures.is_valid().to_numpy(zero_copy_only=False)
        places = first + np.flatnonzero(whole)
        found = b"".join(table[TEXT_SIGNATURE].filter(pa.array(whole)).to_pylist())
        texts[places] = np.frombuffer(found, np.uint32).reshape(-1, PERMUTATIONS)
        counts[places] = pc.list_value_length(of_pictures).drop_null().to_numpy()
        most = int(counts[places].max(initial=0))
        if most > pictures.shape[1]:
            pictures = np.pad(pictures, ((0, 0), (0, most - pictures.shape[1])))
        within = np.arange(pictures.shape[1]) < counts[first : first + len(table), None]
        pictures[first : first + len(table)][within] = of_pictures.flatten().to_numpy()
        first += len(table)
    counts[left_out] = -1
    return Signatures(texts, pictures, counts, rest)
