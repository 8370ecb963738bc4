"""The validation of a configuration. It turns a tree of plain values into a RunConfig, or raises one error that names
every problem."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from qwenvl_train.config.keys import keys_of, section_of
from qwenvl_train.config.options import verbs_with
from qwenvl_train.config.other_names import reason_against, suggestion
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.config.verb import Verb
from qwenvl_train.errors import UserError

NO_FILES: Mapping[str, Path] = {}
_LINE_KEY = re.compile(r"[\w.]+")

S = TypeVar("S", bound=BaseModel)

# Plain words for pydantic's kinds of error. The other messages of pydantic already read "Input should be …".
_ALLOWED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "string_type": "text",
    "tuple_type": "one entry or a list",
    "too_short": "a list of at least one entry",
    "model_type": "a file name or a mapping with a path",
}


def validate(tree: dict, given: frozenset[str], verb: Verb, files: Mapping[str, Path] = NO_FILES) -> RunConfig:
    """Return the checked configuration. Raise UserError with all problems if there are any. `given` holds the keys that
    the user has set, and each must have an effect. `files` maps keys to the file that sets them, for the messages."""
    try:
        config = verb.config.model_validate(tree)
        problems = _named(verb.broken_rules(config, given), files)
    except ValidationError as error:
        part = _broken_rules_of_part(_valid_part(verb.config, tree), given, verb)
        problems = _named(_all_lines(error, verb) + part, files)
    if problems:
        raise UserError("\n".join(problems))
    return config


def value_problems(tree: dict, verb: Verb, files: Mapping[str, Path]) -> list[str]:
    """Return one line for each invalid value. The rules that involve several settings are not checked."""
    try:
        verb.config.model_validate(tree)
    except ValidationError as error:
        return _named(_all_lines(error, verb), files)
    return []


def _named(lines: list[str], files: Mapping[str, Path]) -> list[str]:
    """Return the lines, each with the file that sets the key at its beginning."""
    keys = {line: _LINE_KEY.match(line) for line in lines}
    found = {line: match and files.get(match[0]) for line, match in keys.items()}
    return [f"{file}: {line}" if (file := found[line]) else line for line in lines]


def _broken_rules_of_part(part: RunConfig, given: frozenset[str], verb: Verb) -> list[str]:
    """Return one line for each problem in a configuration without its invalid values. Rules that read an invalid value
    are skipped."""
    lines: list[str] = []
    for rule in verb.rules:
        try:
            lines.extend(rule(part, given))
        except AttributeError:  # the rule reads a value that is not in the configuration
            continue
    return lines


def _all_lines(error: ValidationError, verb: Verb) -> list[str]:
    return [line for details in error.errors() for line in _lines(details, verb)]


def _lines(details: ErrorDetails, verb: Verb) -> list[str]:
    """Return the lines for one error of pydantic. A line has the key, the value, and what is allowed or was probably
    meant."""
    keys = keys_of(verb.config)
    key, kind, value = ".".join(str(part) for part in details["loc"]), details["type"], details["input"]
    if kind == "missing":
        return [f"{key} is not set, and it has no default"]
    if kind == "extra_forbidden":
        return [_unknown(leaf, inner, verb) for leaf, inner in keys.leaves(key, value)]
    if (section := keys.section(key)) is not None:
        return [f"{key}={_text(value)}: is a section; its settings are {', '.join(section.model_fields)}"]
    allowed = _ALLOWED.get(kind, details["msg"].removeprefix("Input should be "))
    or_null = " or null" if keys.may_be_null(key) else ""
    return [f"{key}={_text(value)}: must be {allowed}{or_null}"]


def _unknown(key: str, value: object, verb: Verb) -> str:
    """Return the line for a key that the verb does not have. It may be a key of other verbs."""
    section = key.partition(".")[0]
    if section not in verb.config.model_fields and (others := verbs_with(section)):
        *first, last = others
        named = f"{', '.join(first)} and {last}" if first else last
        return f"{key} has no effect on {verb.name}; it is a setting of qwenvl-train {named}"
    name = key.rpartition(".")[2]
    if reason := reason_against(name):
        return f"{key}={_text(value)}: there is no such setting; {reason}"
    meant = suggestion(name) or keys_of(verb.config).nearest(key)
    hint = f"; did you mean {meant}?" if meant else "; configs/train.yaml and the groups next to it list all settings"
    return f"{key}={_text(value)}: there is no such setting{hint}"


def _text(value: object) -> str:
    """Return a value as the user would write it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{','.join(_text(entry) for entry in value)}]"
        case dict():
            return "{" + ",".join(f"{key}:{_text(inner)}" for key, inner in value.items()) + "}"
        case _:
            return str(value)


def _valid_part(section: type[S], tree: dict) -> S:
    """Return the configuration without its invalid values. Reading one of them raises AttributeError."""
    part: dict[str, object] = {}
    for name, field in section.model_fields.items():
        inner = section_of(field)
        with suppress(ValidationError, KeyError):
            if inner is not None and isinstance(tree[name], dict):
                part[name] = _valid_part(inner, tree[name])
            else:
                part[name] = TypeAdapter(field.rebuild_annotation()).validate_python(tree[name])
    return section.model_construct(None, **part)
