"""Builds the optimizer, with one learning rate per component and no weight decay on biases and norms."""

from typing import Any

import torch

from qwenvl_train.config.schema import OptimConfig, RunConfig
from qwenvl_train.families.family import Family
from qwenvl_train.model.components import component_of


def parameter_groups(model: torch.nn.Module, family: Family, config: RunConfig) -> list[dict[str, Any]]:
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        component = component_of(name, family)
        decays = _decays(name, parameter)
        group = groups.setdefault(
            (component, decays),
            {
                "params": [],
                "component": component,
                "lr": config.learning_rate(component),
                "weight_decay": config.optim.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizer(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"betas": (config.beta1, config.beta2), "eps": config.eps}
    match config.name:
        case "adamw":
            # The current device of the weights does not matter: DeepSpeed moves them to the GPU later, or to the host's
            # memory, where the fused one computes, too. With fused=None torch chooses among its other
            # implementations; with False it would use the slowest one.
            return torch.optim.AdamW(groups, fused=True if torch.cuda.is_available() else None, **options)
        case "adamw_8bit":
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit(groups, **options)


def moment_bytes(config: OptimConfig) -> int:
    """Return how many bytes the optimizer keeps for each trained parameter."""
    match config.name:
        case "adamw":
            return 8
        case "adamw_8bit":
            return 2


def keep_masters(model: torch.nn.Module) -> None:
    """Convert trained parameters to float32, because small updates would vanish in half precision. Autocast still
    computes in half precision."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def round_trained(model: torch.nn.Module) -> None:
    """Round trained parameters to bfloat16, in which QLoRA and TRL keep the weights that they train beside 4-bit ones.
    Runs start from these values, whatever their precision."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()


def _decays(name: str, parameter: torch.nn.Parameter) -> bool:
    """Return whether weight decay applies: to matrices, but not to norms and biases, which are vectors. ZeRO-3 keeps
    the true shape of a parameter in `ds_shape`."""
    return len(getattr(parameter, "ds_shape", parameter.shape)) > 1
