"""Freezes each component, trains it in full or trains it through adapters, and asserts that the result is as chosen."""

from peft import PeftModel
from transformers import PreTrainedModel

from qwenvl_train.config.schema import COMPONENTS, RunConfig
from qwenvl_train.families.family import Family
from qwenvl_train.model.adapters import refuse_other_components, with_new_adapters, with_stored_adapter
from qwenvl_train.model.components import component_of, is_shadow, mode_of
from qwenvl_train.model.stored_adapter import StoredAdapter, continues_adapter, stored_adapter


def select_trained(
    model: PreTrainedModel, family: Family, config: RunConfig, float32_adapters: bool = True
) -> PreTrainedModel | PeftModel:
    """Freeze, unfreeze and adapt components as tune_mm_* and lora.* say, and assert that the result is as chosen.

    Parts of a stored adapter that belong to a frozen component stay in the model, and are saved with it.
    """
    modes = {component: mode_of(component, config) for component in COMPONENTS}
    for name, parameter in model.named_parameters():
        full = modes[component_of(name, family)] == "full"
        parameter.requires_grad_(full and parameter.is_floating_point())
    continued = continued_adapter(config)
    if continued:
        model = with_stored_adapter(model, continued, float32_adapters)
        refuse_other_components(model, continued, family, config)
    elif "lora" in modes.values():
        model = with_new_adapters(model, family, config, float32_adapters)
    for name, parameter in model.named_parameters():
        mode = modes[component_of(name, family)]
        expected = {"frozen": False, "full": not is_shadow(name), "lora": "lora_" in name}[mode]
        if continued:
            parameter.requires_grad_(expected)
        assert parameter.requires_grad == expected, f"{name} is {mode} but requires_grad={parameter.requires_grad}"
    return model


def continued_adapter(config: RunConfig) -> StoredAdapter | None:
    """Return the adapter in model.path that the run trains further, or None."""
    return stored_adapter(config.model) if continues_adapter(config) else None
