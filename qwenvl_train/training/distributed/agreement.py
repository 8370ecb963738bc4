"""Ends a run at its start if its processes differ in what has to be the same: code, packages, settings or data."""

import hashlib
import json
import platform
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState

import qwenvl_train
from qwenvl_train.config.flat import flat
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.folder import package_versions
from qwenvl_train.training.distributed.store import agree, collect

_MISSING = "missing"


def refuse_other_versions(state: PartialState) -> None:
    """Raise UserError on all processes unless all run the same code with the same packages."""
    if state.num_processes == 1:
        return
    facts = {"the code of qwenvl-train": _digest_of_code(), "python": platform.python_version()} | package_versions()
    refuse_differences(state, facts, "install the same versions on every host.")


def refuse_other_settings(state: PartialState, config: RunConfig) -> None:
    """Raise UserError on all processes unless all have the same settings."""
    settings = flat(config.model_dump(mode="json"))
    refuse_differences(state, settings, "start every process by the same command, with the same YAML files.")


def refuse_differences(state: PartialState, facts: Mapping[str, object], remedy: str) -> None:
    """Raise UserError on all processes if one has other facts than the main process, naming it and its host."""
    if state.num_processes == 1:
        return
    collected = collect(state, json.dumps({"host": socket.gethostname(), "facts": facts}))
    found = [_difference(rank, json.loads(theirs), json.loads(collected[0])) for rank, theirs in enumerate(collected)]
    if failure := agree(state, next(filter(None, found), "")):
        raise UserError(f"{failure}; {remedy}")


def _difference(rank: int, theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    names = dict.fromkeys((*mine["facts"], *theirs["facts"]))
    other = [name for name in names if theirs["facts"].get(name, _MISSING) != mine["facts"].get(name, _MISSING)]
    if not other:
        return ""
    more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
    found, wanted = (_in_words(facts["facts"].get(other[0], _MISSING)) for facts in (theirs, mine))
    return (
        f"{other[0]}{more} is {found} in process {rank} on host {theirs['host']}, but {wanted} in process 0 on host "
        f"{mine['host']}"
    )


def _in_words(value: object) -> str:
    return "not there" if value is None or value == _MISSING else str(value)


def _digest_of_code() -> str:
    package = Path(qwenvl_train.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return f"version {qwenvl_train.__version__} ({digest.hexdigest()[:12]})"
