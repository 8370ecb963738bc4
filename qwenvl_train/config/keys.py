"""The dotted keys of a configuration: which keys exist, what values they take, and which key a misspelt key probably
meant."""

from collections.abc import Iterator
from functools import cache

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.options import nearest
from qwenvl_train.config.schema import RunConfig


class Keys:
    def __init__(self, config: type[RunConfig]):
        self._config = config
        self.fields = dict(_fields(config, ""))
        """Maps each key that takes a value to its field. Sections are not included."""

    def leaves(self, key: str, value: object) -> Iterator[tuple[str, object]]:
        """Yield the dotted keys and values in a value: `lora={rank: 8}` becomes `lora.rank=8`. A mapping that is itself
        the value of a key stays whole."""
        if isinstance(value, dict) and value and key not in self.fields:
            for name, inner in value.items():
                yield from self.leaves(f"{key}.{name}", inner)
        else:
            yield key, value

    def section(self, key: str) -> type[BaseModel] | None:
        """Return the section with this key, or None if there is none."""
        section: type[BaseModel] | None = self._config
        for name in key.split("."):
            field = section.model_fields.get(name) if section else None
            section = section_of(field) if field else None
        return section

    def takes_text(self, key: str) -> bool:
        """Return whether a key takes any text, as keys for names and paths do."""
        field = self.fields.get(key)
        if field is None:
            return False
        try:
            TypeAdapter(field.rebuild_annotation()).validate_python("any word")
        except ValidationError:
            return False
        return True

    def may_be_null(self, key: str) -> bool:
        field = self.fields.get(key)
        return field is not None and type(None) in getattr(field.annotation, "__args__", ())

    def nearest(self, key: str) -> str | None:
        """Return the key that was probably meant, or None. For example, `lr` and `trainn.lr` both mean train.lr. Inside
        an entry of data.train or data.eval, only the keys of an entry are considered."""
        parent, _, name = key.rpartition(".")
        if parent.startswith(("data.train.", "data.eval.")):
            meant = nearest(name, SourceConfig.model_fields)
            return meant and f"{parent}.{meant}"
        keys = list(self.fields)
        sections = [known for known in self._config.model_fields if known not in keys]
        same_name = [known for known in keys if _squeezed(known) == _squeezed(name)]
        if same_name and not parent:
            return same_name[0]  # that of training comes first
        return nearest(key, same_name, cutoff=0) or nearest(key, [*keys, *sections, "recipe"]) or self._by_last(name)

    def _by_last(self, name: str) -> str | None:
        by_name = {known.rpartition(".")[2]: known for known in self.fields}
        meant = nearest(name, by_name, cutoff=0.75)
        return meant and by_name[meant]


def _squeezed(key: str) -> str:
    """Return the last name of a key without signs between its words."""
    return key.rpartition(".")[2].replace("_", "").replace("-", "").lower()


@cache
def keys_of(config: type[RunConfig]) -> Keys:
    return Keys(config)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field holds, or None if it holds a value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _fields(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        inner = section_of(field)
        if inner is None:
            yield prefix + name, field
        else:
            yield from _fields(inner, f"{prefix}{name}.")
