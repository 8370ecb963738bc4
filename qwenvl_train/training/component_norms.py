"""Measures how fast each component learns: the norm of its gradient, and its update relative to its weights.

Both are measured only in steps that are logged. They cost one pass over the gradients, and copies of about a million
weights of each component.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SAMPLED = 2**20
"""About how many weights of a component the size of its update is measured on."""

_NORMS_OF_GROUPS = ("get_grad_norm_direct", "complete_grad_norm_calculation_for_cpu_offload")
"""The methods with which DeepSpeed's optimizers compute the norm of the gradient of each of their groups."""


class ComponentNorms(TrainerCallback):
    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._measures = False
        self._norms: dict[str, torch.Tensor] = {}
        self._before: dict[str, list[torch.Tensor]] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._of_groups: list[Any] = []
        """The norms that DeepSpeed has computed in the current step, one for each of its groups."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._optimizer = kwargs["optimizer"]
        self._zero = getattr(self._optimizer, "optimizer", None) if self._sharded else None
        for name in _NORMS_OF_GROUPS:
            if hasattr(self._zero, name):
                setattr(self._zero, name, self._recording(getattr(self._zero, name)))

    @property
    def _sharded(self) -> bool:
        return self._accelerator.state.deepspeed_plugin is not None

    def _recording(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        def computed(*arguments: Any, **keywords: Any) -> Any:
            norm = compute(*arguments, **keywords)
            self._of_groups.append(norm)
            return norm

        return computed

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step + 1
        self._measures = step % state.logging_steps == 0 or (step == 1 and args.logging_first_step)
        self._of_groups.clear()
        if self._measures:
            self._before = {component: _sampled(weights) for component, weights in self._weights().items()}

    def before_update(self, norm: torch.Tensor | float) -> None:
        """Measure the gradients. `norm` is the norm of the gradient of all weights before clipping, by which this
        corrects for clipping and for the scale of fp16."""
        if not self._measures:
            return
        squares: dict[str, list[torch.Tensor]] = defaultdict(list)
        for component, one in self._group_norms():
            squares[component].append(torch.as_tensor(one, dtype=torch.float32, device=self._accelerator.device) ** 2)
        sums = {component: torch.stack(found).sum() for component, found in squares.items()}
        if len(sums) > 1:
            total = torch.stack(list(sums.values())).sum()
            self._norms = {component: norm * (one / total).sqrt() for component, one in sums.items()}

    def _group_norms(self) -> Iterator[tuple[str, Any]]:
        """Yield the component of each group of weights and the norm of its gradient, all in the same scale."""
        if not self._sharded:
            for group in self._optimizer.param_groups:
                gradients = [weight.grad for weight in group["params"] if weight.grad is not None]
                if gradients:
                    yield group["component"], torch.nn.utils.get_total_norm(gradients)
            return
        components = self._components_of_groups()
        if len(components) == len(self._of_groups):
            yield from zip(components, self._of_groups, strict=True)

    def _components_of_groups(self) -> list[str]:
        """Return the component of each group of DeepSpeed's optimizer. ZeRO-3 divides groups into smaller ones."""
        components = [group["component"] for group in self._optimizer.param_groups]
        parts = getattr(self._zero, "sub_group_to_group_id", None)
        return components if parts is None else [components[parts[number]] for number in sorted(parts)]

    def _weights(self) -> dict[str, list[torch.Tensor]]:
        """Return the weights of each component that the optimizer updates. Under DeepSpeed, they are this process's
        share. Weights that are kept on a disk are left out."""
        found: dict[str, list[torch.Tensor]] = defaultdict(list)
        if parts := getattr(self._zero, "fp32_partitioned_groups_flat", None):
            for component, part in zip(self._components_of_groups(), parts, strict=True):
                found[component].append(part)
        else:
            for group in self._optimizer.param_groups:
                found[group["component"]] += group["params"]
        return found

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self._measures:
            return
        for component, weights in self._weights().items():
            pairs = zip(self._before[component], _sampled(weights), strict=True)
            sums = [torch.stack([((new - old) ** 2).sum(), (old**2).sum()]) for old, new in pairs]
            self._sums[component] = torch.stack(sums).sum(0).to(self._accelerator.device)
        self._before = {}

    def take(self) -> dict[str, float]:
        """Return the figures of the last step. All processes must call this together."""
        found = {f"grad_norm_{component}": norm for component, norm in self._norms.items()}
        if self._sums:
            changed, size = self._accelerator.reduce(torch.stack(list(self._sums.values()))).T
            for component, ratio in zip(self._sums, (changed / size).sqrt(), strict=True):
                found[f"update_ratio_{component}"] = ratio
        self._norms, self._sums = {}, {}
        if not found:
            return {}
        figures = dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))
        # Weights that are on a disk, or that are all 0, have no ratio.
        return {key: figure for key, figure in figures.items() if isfinite(figure)}


@torch.no_grad()
def _sampled(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies of some of the weights, evenly spread over all of them, in float32."""
    # An odd distance reaches all columns of matrices, whose widths are even.
    distance = max(1, sum(weight.numel() for weight in weights) // SAMPLED) | 1
    return [weight.detach().reshape(-1)[::distance].float().clone() for weight in weights]
