"""The dotted keys of the configuration: which exist, what they take, and which one a misspelt key meant."""

from collections.abc import Iterator
from functools import cache

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from qwenvl_train.config.options import nearest
from qwenvl_train.config.schema import RunConfig, SourceConfig


@cache
def fields_by_key() -> dict[str, FieldInfo]:
    """Every setting that a value can be given to; sections are not among them."""
    return dict(_fields(RunConfig, ""))


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, if it holds one."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """`lora={rank: 8}` is `lora.rank=8`; a setting whose value is itself a mapping stays whole."""
    if isinstance(value, dict) and value and key not in fields_by_key():
        for name, inner in value.items():
            yield from leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def takes_text(key: str) -> bool:
    """True for names, paths and the like, where any word will do."""
    field = fields_by_key().get(key)
    if field is None:
        return False
    try:
        TypeAdapter(field.rebuild_annotation()).validate_python("any word")
    except ValidationError:
        return False
    return True


def nearest_key(key: str) -> str | None:
    """`lr` and `trainn.lr` both mean train.lr; inside an entry of data.train its own keys are asked."""
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
