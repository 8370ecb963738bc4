"""The entries of data.train and data.eval: files, with how their rows are read."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from qwenvl_train.config.options import nearest
from qwenvl_train.config.section import NameList, Section

RowFormat = Literal[
    "auto", "llava", "sharegpt", "messages", "prompt_completion", "query_response", "instruction", "preference"
]


ColumnName = Literal[
    "id", "image", "images", "video", "videos", "system", "tools", "objects", "messages", "conversations", "prompt",
    "answer", "chosen", "rejected"
]  # fmt: skip


def _known_columns(value: object) -> object:
    for name in value if isinstance(value, dict) else ():
        if name not in get_args(ColumnName):
            meant = nearest(str(name), get_args(ColumnName))
            hint = f"did you mean {meant}?" if meant else f"the names are {', '.join(get_args(ColumnName))}"
            words = "a mapping from names such as image, prompt and answer to columns of the file"
            raise PydanticCustomError("columns", "{problem}", {"problem": f"{words}; {name} is no such name; {hint}"})
    return value


class SourceConfig(Section):
    """An entry of data.train or data.eval. Only this section and model.shape have defaults here, since they are written
    by hand."""

    path: str
    """A .jsonl, .json, .parquet, .csv or .tsv file, a folder or glob of these, an arrow dataset folder, or a hub id."""
    format: RowFormat = "auto"
    columns: Annotated[dict[ColumnName, str], BeforeValidator(_known_columns), Field(min_length=1)] | None = None
    """The columns of the file by the names that they have in a row, such as {image: image_path, prompt: question,
    answer: answer}. With null, the columns have these names already."""
    media_root: str | None = None
    """The folder that relative paths start from, and that no path may leave. With null, relative paths start from the
    folder of the data file, and paths may lead anywhere."""
    weight: PositiveFloat | None = None
    """The share of this entry in an epoch, relative to the weights of the other entries. Either all entries have a
    weight, or none has."""
    repeats: PositiveFloat | None = None
    """How often an epoch goes through this entry. With 0.5, an epoch takes half of it, and the next epoch another
    half."""
    metric: NameList = ()
    """The metrics by which generated answers to its rows are scored, where eval.metrics is auto."""
    split: str | None = None
    """The split of an arrow dataset folder or a hub id. With null, it is train if there is such a split."""
    subset: str | None = None
    """The configuration name of a hub id."""
    revision: str | None = None
    """The branch, tag or commit of a hub id."""


def _as_sources(value: object) -> object:
    if value is None:
        return None
    entries = value if isinstance(value, list | tuple) else [value]
    return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


Sources = Annotated[tuple[SourceConfig, ...], BeforeValidator(_as_sources), Field(min_length=1)]
_SOURCES: TypeAdapter[Sources | None] = TypeAdapter(Sources | None)
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_MEANT_AS_SHARE = re.compile(r"0?\.\d+|[\d.]+\s*%")


def _share_or_sources(value: object, _: ValidatorFunctionWrapHandler) -> object:
    if not isinstance(value, str) or not _MEANT_AS_SHARE.fullmatch(value):
        return _SOURCES.validate_python(value)  # its errors name the entry, and those of the union would name its type
    share = _SHARE.fullmatch(value)
    if share is None or not 0 < float(share[1]) < 100:
        raise PydanticCustomError("share", "Input should be files, or a share above 0% and below 100%, such as 5%,")
    return value


HeldOut = Annotated[str | tuple[SourceConfig, ...] | None, WrapValidator(_share_or_sources)]
"""Entries as in data.train, or a share of data.train, such as 5%, which is kept as text."""


def entry_names(entries: Sequence[SourceConfig]) -> list[str]:
    """Return a short name for each entry: the last part of its path, or the whole path if two end alike, with subset
    and split if two have the same path."""
    paths = [entry.path.rstrip("/") for entry in entries]
    short = [path.rpartition("/")[2] for path in paths]
    names = [one if short.count(one) == 1 else path for one, path in zip(short, paths, strict=True)]
    parts = [" ".join(filter(None, (entry.subset, entry.split))) for entry in entries]
    return [
        f"{name} ({part})" if part and names.count(name) > 1 else name for name, part in zip(names, parts, strict=True)
    ]
