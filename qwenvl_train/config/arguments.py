"""The parser of the command line. It reads key=value arguments with Hydra's grammar, and returns the options of groups
and the values of keys."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from qwenvl_train.config.keys import Keys
from qwenvl_train.config.layers import is_own_file
from qwenvl_train.config.options import Names, nearest, other_kind
from qwenvl_train.config.other_names import reason_against, suggestion
from qwenvl_train.errors import UserError

# Matches plain text that Hydra's grammar refuses without quotes, such as ~/my.jsonl and names that are not ASCII.
_PLAIN_TEXT = re.compile(r"(?P<key>\+{0,2}[A-Za-z_][\w.]*)=(?P<text>[^\s'\"=,()\[\]{}$\\]+)")

_VERBATIM = ("chat.prompt=", "chat.system=")
"""Keys whose values are sentences, in which commas, brackets and quotes are nothing special."""


@dataclass(frozen=True)
class Arguments:
    choices: dict[str, str]
    """Maps each group to the chosen option. The recipe is stored under the group `recipe`."""
    values: dict[str, object]
    """Maps each dotted key to its value."""
    problems: list[str]
    """One line for each argument that cannot be used."""


def read_arguments(arguments: list[str], keys: Keys, names: Names) -> Arguments:
    """Parse the arguments. An argument that cannot be used becomes a problem, so that the others are still checked."""
    choices: dict[str, str] = {}
    values: dict[str, object] = {}
    problems: list[str] = []
    options = {**names.groups, "recipe": names.recipes}
    for argument in arguments:
        try:
            if argument.startswith(_VERBATIM):
                key, _, text = argument.partition("=")
                _put(values, key, _as_written(text))
                continue
            override = _parse(argument, keys)
            group = override.key_or_group
            if group in options and not isinstance(override.value(), dict):
                option = _option(group, override.get_value_string().strip("'\""), options[group])
                _put(choices, group, names.resolved(group, option))
            else:
                for key, value in _values(override, keys):
                    _put(values, key, value)
        except UserError as problem:
            problems.append(str(problem))
    return Arguments(choices, values, problems)


def _as_written(text: str) -> str | None:
    """Return a text without quotes around it, or None for null."""
    if text == "null":
        return None
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return text.replace("${", r"\${")  # otherwise it would be replaced by the value of a setting


def _values(override: Override, keys: Keys) -> list[tuple[str, object]]:
    """Return the keys and values of an argument. For keys that take text, a number stays as it is written: in
    run_name=007 and model.revision=12e4, the values are text."""
    key = override.key_or_group
    if isinstance(override.value(), int | float) and keys.takes_text(key):
        return [(key, override.get_value_string())]
    return list(keys.leaves(key, override.value()))


def _parse(argument: str, keys: Keys) -> Override:
    if argument.startswith("-"):
        name = argument.lstrip("-").partition("=")[0]
        if reason := reason_against(name):
            raise UserError(f"{argument}: there is no such flag; {reason}")
        meant = suggestion(name)
        hint = f"; did you mean {meant}?" if meant else ""
        raise UserError(f"{argument}: there is no such flag; write settings as key=value{hint}")
    if argument.startswith("~"):
        raise UserError(f"{argument}: a setting cannot be removed; set it to null instead")
    if "=" not in argument:
        path = os.path.expanduser(argument)
        is_run = "run" in keys.fields and os.path.isfile(os.path.join(path, "config.yaml"))
        key = "run" if is_run else "data.train"
        meant = f"; did you mean {key}={argument}?" if os.path.exists(path) else ""
        raise UserError(f"{argument}: write settings as key=value{meant}")
    override = _parse_with_hydra(argument)
    key = override.key_or_group
    if override.is_sweep_override():
        raise UserError(
            f"{argument}: {key} takes one value; write a list as '{key}=[first,second]', or -m for one run with each"
        )
    if not key or "/" in key or override.package is not None:
        raise _unreadable(argument)
    return override


def _parse_with_hydra(argument: str) -> Override:
    parser = OverridesParser.create()
    try:
        return parser.parse_override(argument)
    except HydraException:
        plain = _PLAIN_TEXT.fullmatch(argument)
        if plain is None:
            raise _unreadable(argument) from None
        return parser.parse_override(f"{plain['key']}='{plain['text']}'")


def _unreadable(argument: str) -> UserError:
    key = argument.partition("=")[0].lstrip("+") or "key"
    return UserError(f"{argument}: cannot be parsed; quote a value with brackets, commas or =: '{key}=\"…\"'")


def _option(group: str, option: str, options: list[str]) -> str:
    if option in options or is_own_file(option):
        return option
    if group == "recipe" and (Path(option).expanduser() / "config.yaml").is_file():
        raise UserError(f"recipe={option}: is a folder; did you mean +recipe={option.rstrip('/')}/config.yaml?")
    meant = nearest(option, options)
    hint = f"; did you mean {group}={meant}?" if meant else "."
    if group == "model" and (kind := other_kind(option, options)):
        hint = f", and models of the kind {kind} are not supported."
    own = {"model": " (your own: model.path=…)", "data": " (your own: data.train=…)"}.get(
        group, f" (your own: {group}=my.yaml)"
    )
    raise UserError(f"{group}={option}: there is no such option{hint} Options: {', '.join(options)}{own}")


def _put(known: dict, key: str, value: object) -> None:
    if known.setdefault(key, value) not in (value,):  # unlike ==, `in` is also true for the same nan object
        raise UserError(f"{key} is given twice, as {known[key]} and as {value}; give it once")
