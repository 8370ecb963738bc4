"""The dotted keys of the configuration. This module knows which keys exist, what values they take, and which key a
misspelt key probably meant."""

from collections.abc import Iterator
from functools import cache

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from qwenvl_train.config.options import nearest
from qwenvl_train.config.schema import RunConfig, SourceConfig


@cache
def fields_by_key() -> dict[str, FieldInfo]:
    """Return the field of each key that takes a value. Sections are not included."""
    return dict(_fields(RunConfig, ""))


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field holds, or None if it holds a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield the dotted keys and values in a value: `lora={rank: 8}` becomes `lora.rank=8`. A mapping that is itself the
    value of a key stays whole."""
    if isinstance(value, dict) and value and key not in fields_by_key():
        for name, inner in value.items():
            yield from leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def takes_text(key: str) -> bool:
    """Return whether a key takes any text, as keys for names and paths do."""
    field = fields_by_key().get(key)
    if field is None:
        return False
    try:
        TypeAdapter(field.rebuild_annotation()).validate_python("any word")
    except ValidationError:
        return False
    return True


def nearest_key(key: str) -> str | None:
    """Return the key that was probably meant, or None. For example, `lr` and `trainn.lr` both mean train.lr. Inside an
    entry of data.train or data.eval, only the keys of an entry are considered."""
    parent, _, name = key.rpartition(".")
    if parent.startswith(("data.train.", "data.eval.")):
        meant = nearest(name, SourceConfig.model_fields)
        return meant and f"{parent}.{meant}"
    keys = list(fields_by_key())
    sections = [known for known in RunConfig.model_fields if known not in keys]
    same_name = [known for known in keys if known.rpartition(".")[2] == name]
    return nearest(key, same_name, cutoff=0) or nearest(key, [*keys, *sections, "recipe"]) or _by_last_name(name)


def _by_last_name(name: str) -> str | None:
    by_name = {known.rpartition(".")[2]: known for known in fields_by_key()}
    meant = nearest(name, by_name, cutoff=0.75)
    return meant and by_name[meant]


def _fields(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        inner = section_of(field)
        if inner is None:
            yield prefix + name, field
        else:
            yield from _fields(inner, f"{prefix}{name}.")
