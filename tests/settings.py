"""A run's configuration for tests that do not go through the command line."""

from copy import deepcopy
from functools import cache
from typing import Any

from qwenvl_train.config.compose import compose
from qwenvl_train.config.schema import RunConfig


def run_config(**settings: Any) -> RunConfig:
    """The shipped defaults with dotted keys replaced, cross-field rules not applied."""
    tree = deepcopy(_defaults())
    for key, value in settings.items():
        *path, last = key.split(".")
        branch = tree
        for name in path:
            branch = branch[name]
        branch[last] = value
    return RunConfig.model_validate(tree)


@cache
def _defaults() -> dict[str, Any]:
    return compose(["tune_mm_mlp=true"]).config.model_dump(mode="json") | {"tune_mm_mlp": False}
