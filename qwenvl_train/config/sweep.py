"""The jobs of a sweep: one for each combination of values that the arguments of -m give, in Hydra's grammar."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any, Generic

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep
from hydra.errors import HydraException

from qwenvl_train.config.compose import C, Composed, compose
from qwenvl_train.config.options import YAML, Names
from qwenvl_train.config.paths import DATA_ENDINGS
from qwenvl_train.config.verb import Verb
from qwenvl_train.errors import UserError

_MOST = 1000
"""The most jobs of a sweep."""
_FUNCTIONS = re.compile(r"\+{0,2}[\w.]+=(choice|range|interval|glob|sort|shuffle)\(")
_NOT_IN_NAMES = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class Job(Generic[C]):
    """One run of a sweep. Its settings have been checked."""

    name: str
    """The name of the run, made from the settings that vary."""
    arguments: tuple[str, ...]
    """The command line of the run."""
    composed: Composed[C]


@dataclass(frozen=True)
class _Setting:
    """A setting with the value that it has in one job."""

    key: str
    value: str

    @property
    def label(self) -> str:
        """The setting as a part of a folder's name: the last part of its key, and its value, of paths the last part."""
        value = self.value.strip("'\"").rstrip("/").rpartition("/")[2]
        value = next((value.removesuffix(end) for end in (*YAML, *DATA_ENDINGS) if value.endswith(end)), value)
        return f"{self.key.rpartition('.')[2]}-{_NOT_IN_NAMES.sub('-', value).strip('-')}"[:60]


def jobs_of(arguments: list[str], verb: Verb, names: Names) -> list[Job]:
    """Return the jobs of a sweep. Raise UserError with the problems of all jobs if their settings have any."""
    varying = {word: values for word in arguments if (values := _values(word, names)) is not None}
    if not varying:
        raise UserError("-m starts one run for each value of a setting, so give one several: train.lr=1e-4,2e-4")
    if (number := prod(map(len, varying.values()))) > _MOST:
        raise UserError(f"-m: these settings make {number:,} runs, and a sweep has at most {_MOST:,}.")
    combinations = [dict(zip(varying, values, strict=True)) for values in product(*varying.values())]
    labels = _distinct("_".join(setting.label for setting in chosen.values()) for chosen in combinations)
    words = [
        tuple(f"{chosen[word].key}={chosen[word].value}" if word in chosen else word for word in arguments)
        for chosen in combinations
    ]
    return _checked(dict(zip(labels, words, strict=True)), verb, names)


def _checked(jobs: dict[str, tuple[str, ...]], verb: Verb, names: Names) -> list[Job]:
    flag = () if names.folder is None else (f"--config-dir={names.folder}",)
    found: list[Job] = []
    failures: dict[str, list[str]] = {}
    for label, words in jobs.items():
        try:
            found.append(Job(label, (*flag, *words), compose(list(words), verb, names)))
        except UserError as error:
            for line in str(error).splitlines():
                failures.setdefault(line, []).append(label)
    if failures:
        lines = [line if len(where) == len(jobs) else f"{line} (in {where[0]})" for line, where in failures.items()]
        raise UserError("\n".join(lines))
    return found


def _values(argument: str, names: Names) -> list[_Setting] | None:
    """Return the settings that an argument stands for, or None if it has one value only. An argument that cannot be
    read counts as one value, since composing the configuration reports it."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        if _FUNCTIONS.match(argument):
            raise _unreadable(argument) from None
        return None
    if not override.is_sweep_override():
        return None
    key = override.key_or_group
    if key in ("run_name", "output_dir"):
        raise UserError(f"{argument}: a sweep has one {key}; its runs are named after the settings that vary")
    values = list(islice(_each(override, argument, names), _MOST + 1))
    if not values:
        raise UserError(f"{argument}: gives no value, so there would be no run")
    if len(values) > _MOST:
        raise UserError(f"{argument}: gives more than {_MOST:,} values")
    return [_Setting(key, value) for value in values]


def _each(override: Override, argument: str, names: Names) -> Iterator[str]:
    value: Any = override.value()
    match value:
        case Glob():
            options = {**names.groups, "recipe": names.recipes}.get(override.key_or_group, [])
            return iter(value.filter(options))
        case RangeSweep(step=0):
            raise UserError(f"{argument}: the step of a range cannot be 0")
    if not override.is_discrete_sweep():
        raise _unreadable(argument)
    return override.sweep_string_iterator()


def _unreadable(argument: str) -> UserError:
    return UserError(
        f"{argument}: is no list of values for -m; write a,b,c or choice(a,b,c), range(start,stop,step) or, for a "
        "group, glob(pattern)"
    )


def _distinct(labels: Iterator[str]) -> list[str]:
    """Return the labels, with a number after those that are there already."""
    found: list[str] = []
    for label in labels:
        number, name = 1, label
        while name in found:
            number += 1
            name = f"{label}-{number}"
        found.append(name)
    return found


def quoted(value: str | Path) -> str:
    """Return a value as an argument that has any characters."""
    return "'" + str(value).replace("'", r"\'") + "'"
