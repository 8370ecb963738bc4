"""Fine-tune Qwen vision-language models from one YAML recipe.

The names below are the Python interface, which docs/python.md describes. They are imported when they are first used,
since the command must answer before torch is loaded.
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwenvl_train.api.datasets import open_dataset, open_preferences
    from qwenvl_train.api.runs import compose, open_run, prepare
    from qwenvl_train.errors import UserError

__version__ = "0.1.0"
__all__ = ["UserError", "compose", "open_dataset", "open_preferences", "open_run", "prepare"]

_HOMES = {
    "UserError": "qwenvl_train.errors",
    "compose": "qwenvl_train.api.runs",
    "open_run": "qwenvl_train.api.runs",
    "prepare": "qwenvl_train.api.runs",
    "open_dataset": "qwenvl_train.api.datasets",
    "open_preferences": "qwenvl_train.api.datasets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve_name(f"{_HOMES[name]}:{name}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
