"""The three components of a model: whether each is frozen, trained in full or trained through adapters, and the table
that says so."""

from dataclasses import asdict, dataclass
from typing import Literal

import torch

from qwenvl_train.config.schema import COMPONENTS, Component, RunConfig
from qwenvl_train.families.family import Family

Mode = Literal["frozen", "full", "lora"]


@dataclass(frozen=True)
class ComponentRow:
    """One line of the table of components, which is printed, stored, and compared with requires_grad."""

    component: Component
    mode: Mode
    parameters: int
    """Number of parameters in the published model, without adapters."""
    trained: int
    """Number of parameters that the optimizer changes, adapters included."""
    lr: float | None
    """Learning rate. None if the component is frozen."""
    where: str
    """Module paths of the component."""

    def as_dict(self) -> dict:
        return asdict(self)


def mode_of(component: Component, config: RunConfig) -> Mode:
    if not config.tuned(component):
        return "frozen"
    return "lora" if config.adapted(component) else "full"


def component_of(parameter: str, family: Family) -> Component:
    """Return the component of a parameter, given by its name in the base model or in PEFT's wrapper."""
    name = parameter.removeprefix("base_model.model.")
    for component, prefixes in family.components.items():
        if any(name.startswith(f"{prefix}.") for prefix in prefixes):
            return component
    raise AssertionError(f"{parameter} of {family.name} belongs to no component")


def component_table(model: torch.nn.Module, family: Family, config: RunConfig) -> list[ComponentRow]:
    counts = {component: [0, 0] for component in COMPONENTS}
    for name, parameter in model.named_parameters():
        count = counts[component_of(name, family)]
        size = _elements(parameter)
        if "lora_" not in name and not is_shadow(name):
            count[0] += size
        if parameter.requires_grad:
            count[1] += size
    return [
        ComponentRow(
            component=component,
            mode=mode_of(component, config),
            parameters=counts[component][0],
            trained=counts[component][1],
            lr=config.learning_rate(component) if config.tuned(component) else None,
            where=", ".join(family.components[component]),
        )
        for component in COMPONENTS
    ]


def is_shadow(name: str) -> bool:
    """Return whether the parameter is an untrained original, which PEFT keeps beside a module trained in full."""
    return ".original_module." in name


def _elements(parameter: torch.nn.Parameter) -> int:
    """Return the number of elements of a parameter.

    Under ZeRO-3 a parameter is empty here, and an attribute holds its true size. A 4-bit one has two elements a byte.
    """
    if hasattr(parameter, "ds_numel"):
        return parameter.ds_numel
    if hasattr(parameter, "quant_state") and parameter.quant_state is not None:
        return int(torch.Size(parameter.quant_state.shape).numel())
    return parameter.numel()
