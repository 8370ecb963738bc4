"""The base class of the sections of a configuration, and the types of values that several sections have."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PositiveInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError


def _as_names(value: object) -> object:
    entries = value if isinstance(value, list | tuple) else [value]
    return [str(entry) if isinstance(entry, int) else entry for entry in entries]


NameList = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
"""One name or a list of names. A name that reads as a number is converted to text."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _one_error(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError("count_or_auto", "Input should be a whole number above 0, or auto") from None


CountOrAuto = Annotated[PositiveInt | Literal["auto"], WrapValidator(_one_error)]


def _bool_or_private(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError("allow_remote", "Input should be true, false or private") from None


AllowRemote = Annotated[bool | Literal["private"], WrapValidator(_bool_or_private)]
"""Whether rows may name addresses. With private, these may be in private networks, too."""
