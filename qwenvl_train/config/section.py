"""The base class of the sections of a configuration, and a type of value that several sections have."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _one_error(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError("count_or_auto", "Input should be a whole number above 0, or auto") from None


CountOrAuto = Annotated[PositiveInt | Literal["auto"], WrapValidator(_one_error)]
