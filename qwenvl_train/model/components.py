"""Choose which parameters are trained: each of the three components frozen, in full, or through adapters.

The choice is one table, which is then enforced.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

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


def select_trained(
    model: PreTrainedModel, family: Family, config: RunConfig, float32_adapters: bool = True
) -> PreTrainedModel | PeftModel:
    """Freeze, unfreeze and adapt components as tune_mm_* and lora.* say, and assert that the result is as chosen."""
    modes = {component: mode_of(component, config) for component in COMPONENTS}
    for name, parameter in model.named_parameters():
        full = modes[component_of(name, family)] == "full"
        parameter.requires_grad_(full and parameter.is_floating_point())
    if "lora" in modes.values():
        adapted = [component for component in COMPONENTS if modes[component] == "lora"]
        whole = [component for component in COMPONENTS if modes[component] == "full"]
        model = _with_adapters(model, family, config, adapted, whole, float32_adapters)
    for name, parameter in model.named_parameters():
        mode = modes[component_of(name, family)]
        expected = {"frozen": False, "full": not _is_shadow(name), "lora": "lora_" in name}[mode]
        assert parameter.requires_grad == expected, f"{name} is {mode} but requires_grad={parameter.requires_grad}"
    return model


def component_table(model: torch.nn.Module, family: Family, config: RunConfig) -> list[ComponentRow]:
    counts = {component: [0, 0] for component in COMPONENTS}
    for name, parameter in model.named_parameters():
        count = counts[component_of(name, family)]
        size = _elements(parameter)
        if "lora_" not in name and not _is_shadow(name):
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


def linear_layers(model: PreTrainedModel, family: Family, component: Component) -> list[str]:
    """Return the names of the linear layers to which adapters of this component apply.

    The output layer is left out, because its weights belong to the vocabulary.
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and name != "lm_head"
        and component_of(f"{name}.weight", family) == component
    ]


def _with_adapters(
    model: PreTrainedModel,
    family: Family,
    config: RunConfig,
    adapted: list[Component],
    full: list[Component],
    float32_adapters: bool,
) -> PeftModel:
    experts = _expert_weights(model, family) if "llm" in adapted else []
    layers = [name for component in adapted for name in linear_layers(model, family, component)]
    lora = LoraConfig(
        task_type=None,
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        use_rslora=config.lora.rslora,
        target_modules=_as_pattern(layers),
        target_parameters=experts or None,
        modules_to_save=[name for component in full for name in _whole_modules(model, family, component)] or None,
        revision=config.model.revision,
        ensure_weight_tying="llm" in full and model.config.tie_word_embeddings,
    )
    adapted_model = get_peft_model(model, lora, autocast_adapter_dtype=float32_adapters)
    for module in adapted_model.modules():
        if isinstance(module, BaseTunerLayer):
            # Autocast casts an adapter's input. PEFT would first cast it to float32, one copy for each linear layer.
            module.cast_input_dtype_enabled = False
    reached = {name.split(".lora_A")[0] for name, _ in adapted_model.named_parameters() if ".lora_A." in name}
    wanted = {f"base_model.model.{name}" for name in layers}
    assert {name for name in reached if ".experts" not in name} == wanted, reached ^ wanted
    return adapted_model


def _whole_modules(model: PreTrainedModel, family: Family, component: Component) -> Iterator[str]:
    """Yield the names of the modules that PEFT trains in full and saves beside the adapters.

    The items of a ModuleList are named one by one, because the model iterates over the list.
    """
    pending = list(family.components[component])
    if model.config.tie_word_embeddings and "lm_head" in pending:
        pending.remove("lm_head")
    while pending:
        name = pending.pop(0)
        module = model.get_submodule(name)
        if isinstance(module, torch.nn.ModuleList) or name == family.language_path:
            pending += [f"{name}.{child}" for child, _ in module.named_children()]
        elif any(True for _ in module.parameters()):
            yield name


def _expert_weights(model: PreTrainedModel, family: Family) -> list[str]:
    """Return the names of the expert weights, which PEFT needs as parameters.

    They are three-dimensional parameters, not linear layers.
    """
    return [name for name, _ in model.named_parameters() if name.endswith(family.expert_weights)]


def _as_pattern(names: list[str]) -> str:
    """Return one regular expression for these names. It accepts any layer number, so that the saved file is short."""
    return "|".join(sorted({re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name)) for name in names}))


def _is_shadow(name: str) -> bool:
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
