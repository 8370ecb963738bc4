"""Adds adapters to a model: new ones, or the stored ones that model.path consists of."""

import re
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from qwenvl_train.config.schema import COMPONENTS, Component, RunConfig
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.model.components import component_of, is_shadow, mode_of
from qwenvl_train.model.sharded import is_sharded, read_sharded
from qwenvl_train.model.stored_adapter import StoredAdapter
from qwenvl_train.model.weights_only import reason_of_refusal

OLDER_NAMES = {r"^model\.(?!language_model\.|visual\.)": "model.language_model.", r"^visual\.": "model.visual."}
"""Names of transformers before 4.52, as patterns, and their present form."""


def with_new_adapters(model: PreTrainedModel, family: Family, config: RunConfig, float32_adapters: bool) -> PeftModel:
    """Add LoRA adapters to every linear layer of the components that are trained through adapters. Components that are
    trained in full become modules that PEFT saves beside the adapters."""
    adapted = [component for component in COMPONENTS if mode_of(component, config) == "lora"]
    full = [component for component in COMPONENTS if mode_of(component, config) == "full"]
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
    _leave_inputs(adapted_model)
    reached = {name.split(".lora_A")[0] for name, _ in adapted_model.named_parameters() if ".lora_A." in name}
    wanted = {f"base_model.model.{name}" for name in layers}
    assert {name for name in reached if ".experts" not in name} == wanted, reached ^ wanted
    return adapted_model


def with_stored_adapter(model: PreTrainedModel, adapter: StoredAdapter, float32_adapters: bool = True) -> PeftModel:
    """Add the layers of a stored adapter, without its weights, which `read_weights` reads.

    Raises:
        UserError: If the adapter belongs to another model.
    """
    lora = LoraConfig.from_pretrained(adapter.path, revision=adapter.revision)
    lora.inference_mode, lora.revision = False, adapter.base.revision
    lora.megatron_config = None  # with one, PEFT imports the module that the adapter names as megatron_core
    try:
        adapted_model = get_peft_model(model, lora, autocast_adapter_dtype=float32_adapters)
    except ValueError as error:
        raise _misfit(adapter, str(error)) from error
    if float32_adapters:
        for name, parameter in adapted_model.named_parameters():
            if ".modules_to_save." in name:
                parameter.data = parameter.data.float()  # as it was trained and stored
    _leave_inputs(adapted_model)
    return adapted_model


def read_weights(model: PeftModel, adapter: StoredAdapter) -> None:
    """Read the weights of a stored adapter into the layers that `with_stored_adapter` added.

    Raises:
        UserError: If the weights do not fit these layers.
    """
    try:
        if is_sharded(Path(adapter.path)):
            result = read_sharded(model, Path(adapter.path))
        else:
            result = model.load_adapter(
                adapter.path,
                "default",
                is_trainable=True,
                torch_device="cpu",
                key_mapping=OLDER_NAMES,
                revision=adapter.revision,
            )
    except KeyError as error:
        raise _misfit(adapter, f"{error.args[0]} is missing") from error
    except (OSError, ValueError, RuntimeError, UnpicklingError) as error:
        raise _misfit(adapter, reason_of_refusal(error) or str(error)) from error
    if result.missing_keys or result.unexpected_keys:
        wrong = [f"{key} is missing" for key in result.missing_keys]
        wrong += [f"{key} belongs to no layer" for key in result.unexpected_keys]
        raise _misfit(adapter, wrong[0])


def refuse_other_components(model: PeftModel, adapter: StoredAdapter, family: Family, config: RunConfig) -> None:
    """Raise UserError if the run trains a part that the adapter does not contain."""
    kinds: dict[Component, set[str]] = {component: set() for component in COMPONENTS}
    for name, _ in model.named_parameters():
        if not is_shadow(name):
            kind = "lora" if "lora_" in name else "full" if ".modules_to_save." in name else "base"
            kinds[component_of(name, family)].add(kind)
    for component in COMPONENTS:
        mode, found = mode_of(component, config), kinds[component]
        if mode == "lora" and "lora" not in found:
            raise UserError(
                f"lora.{component}=true: the adapter in model.path {adapter.path} has no weights for this component; "
                f"set lora.existing=merge to train a new adapter, or tune_mm_{component}=false and "
                f"lora.{component}=false."
            )
        if mode == "full" and found != {"full"}:
            raise UserError(
                f"tune_mm_{component}=true: the adapter in model.path {adapter.path} does not contain this component "
                f"in full; set lora.existing=merge to train it, or tune_mm_{component}=false."
            )


def _leave_inputs(model: PeftModel) -> None:
    """Leave the input of adapters to autocast. PEFT would first cast it to float32, one copy for each linear layer."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False


def _misfit(adapter: StoredAdapter, reason: str) -> UserError:
    first = " ".join(reason.split())
    first = first if len(first) < 200 else f"{first[:200]}…"
    return UserError(
        f"model.path {adapter.path}: this adapter does not fit its base model {adapter.base.path}: {first}"
    )


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
