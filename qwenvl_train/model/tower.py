"""Compute the states that a frozen vision tower passes to its mergers.

The mergers are a component of their own and may be trained.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version

import torch
from transformers import PreTrainedModel

from qwenvl_train.batch import Segments
from qwenvl_train.families.family import Family
from qwenvl_train.model.components import component_of

_PACKAGES = ("av", "pillow", "torch", "torchvision", "transformers")
"""Packages whose versions can change the states of the vision tower, including the reading of media files."""


def package_versions() -> list[str]:
    return [version(package) for package in _PACKAGES]


def mergers_of(visual: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the final merger, followed by the DeepStack mergers."""
    return [visual.merger, *getattr(visual, "deepstack_merger_list", ())]


def merged(visual: torch.nn.Module, states: torch.Tensor) -> list[torch.Tensor]:
    """Return the outputs of all mergers. `states` are in the form that `tower_states` returns."""
    return [merger(level) for merger, level in zip(mergers_of(visual), states, strict=True)]


@torch.no_grad()
def tower_states(
    visual: torch.nn.Module,
    pixels: torch.Tensor,
    grids: torch.Tensor,
    index: dict[str, torch.Tensor | Segments | int],
) -> torch.Tensor:
    """Run the vision tower and return the input of each merger, as [levels, P, width].

    The patches are in the order of `pixels`.
    """
    mergers = mergers_of(visual)
    entered: dict[int, torch.Tensor] = {}

    def note(level: int, _: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        entered[level] = arguments[0]

    hooks = [merger.register_forward_pre_hook(partial(note, level)) for level, merger in enumerate(mergers)]
    try:
        visual(pixels, grid_thw=grids, return_dict=True, **index)
    finally:
        for hook in hooks:
            hook.remove()
    states = torch.stack([entered[level] for level in range(len(mergers))])
    order = index.get("window_index")
    if order is None:
        return states
    # The patches are in the order of windows, and the tower restores their order only after its merger. Windows hold
    # whole groups of merged patches, so the order of the groups is restored here.
    assert isinstance(order, torch.Tensor)
    groups = states.unflatten(1, (len(order), -1))
    return torch.empty_like(groups).index_copy_(1, order, groups).flatten(1, 2)


def tower_digest(model: PreTrainedModel, family: Family, *facts: object) -> str:
    """Return a digest of everything that determines the states of the vision tower for given pixels.

    `model` is the base model, and its weights must not be sharded.
    """
    described = (model.config.vision_config.to_dict(), package_versions(), facts)
    digest = hashlib.sha256(repr(described).encode())
    for name, weights in model.named_parameters():
        if component_of(name, family) == "vision":
            digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
            digest.update(weights.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def gathered(visual: torch.nn.Module, sharded: bool) -> Iterator[None]:
    """Gather the weights of the vision tower on every process, if ZeRO-3 shards them.

    Within the context each process may run the tower any number of times. All processes must enter the context.
    """
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(visual.parameters())):
        yield
