"""Which rows are kept, and the verdicts of all rules about all rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qwenvl_train.curation.duplicates import PERMUTATIONS, Alike, Signatures, alike_rows
from qwenvl_train.curation.rules.table import used
from qwenvl_train.verbs.filter.folder import FilterFolder
from qwenvl_train.verbs.filter.judged import DUPLICATES, PICTURE_SIGNATURE, TEXT_SIGNATURE, UNUSABLE
from qwenvl_train.verbs.filter.settings import FilterSection


@dataclass(frozen=True)
class Outcome:
    rules: tuple[str, ...]
    """The names of the rules, with `unusable` first and `duplicates` last."""
    falls: np.ndarray
    """[rows, rules] bool: whether the row falls to the rule."""
    drops: tuple[bool, ...]
    """Whether rows that fall to the rule are left out, for each rule."""
    words: np.ndarray
    """[rows, 2]: number of words of the questions and of the answers."""
    alike: dict[int, Alike]
    """The rows that are nearly the same as an earlier one, by their numbers."""

    @cached_property
    def kept(self) -> np.ndarray:
        """[rows] bool."""
        return ~falls_to_any(self.falls, self.drops)

    def rules_of(self, row: int) -> list[str]:
        """Return the names of the rules that a row falls to."""
        return [rule for rule, falls in zip(self.rules, self.falls[row].tolist(), strict=True) if falls]


def falls_to_any(falls: np.ndarray, drops: Sequence[bool]) -> np.ndarray:
    """Return whether each row falls to a rule that leaves it out, [rows] bool."""
    return np.logical_or.reduce(falls[:, np.array(drops)], axis=1)


def rules_in(section: FilterSection) -> tuple[str, ...]:
    """Return the names of the rules that judge a row alone, with `unusable` first."""
    return (UNUSABLE, *(rule.name for rule, _ in used(section)))


def outcome_of(folder: FilterFolder, section: FilterSection) -> Outcome:
    """Return the outcome of the judgements in a folder. Rows that fall to another rule are not compared with others, so
    that of rows that are nearly the same, the first one without another fault stays."""
    rules = rules_in(section)
    drops = (True, *(settings.use == "drop" for _, settings in used(section)))
    tables = list(folder.parts([*rules, "question_words", "answer_words"]))
    falls = np.concatenate([_falls(table, rules) for table in tables])
    words = np.concatenate([_columns(table, ("question_words", "answer_words")) for table in tables])
    if section.duplicates.use == "off":
        return Outcome(rules, falls, drops, words, {})
    alike = {one.row: one for one in alike_rows(_signatures(folder, falls_to_any(falls, drops)), section.duplicates)}
    duplicate = np.zeros((len(falls), 1), dtype=bool)
    duplicate[list(alike)] = True
    drops = (*drops, section.duplicates.use == "drop")
    return Outcome((*rules, DUPLICATES), np.concatenate([falls, duplicate], axis=1), drops, words, alike)


def _falls(table: pa.Table, rules: tuple[str, ...]) -> np.ndarray:
    columns = [pc.fill_null(table[rule], False).to_numpy() for rule in rules]
    return np.stack(columns, axis=1)


def _columns(table: pa.Table, names: tuple[str, ...]) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def _signatures(folder: FilterFolder, left_out: np.ndarray) -> Signatures:
    """Return the signatures of all rows. Those of texts are in a file, and take little memory."""
    rows, first = len(left_out), 0
    with TemporaryFile(dir=folder.path) as file:
        texts = np.memmap(file, np.uint32, "w+", shape=(rows, PERMUTATIONS))
    counts, pictures = np.full(rows, -1, dtype=np.int32), np.zeros((rows, 0), dtype=np.uint64)
    for table in folder.parts([TEXT_SIGNATURE, PICTURE_SIGNATURE]):
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
    return Signatures(texts, pictures, counts)
