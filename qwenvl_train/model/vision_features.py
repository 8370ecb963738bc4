"""Run the frozen vision tower on pictures and clips, with the same results as in the passes of a run."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel

from qwenvl_train.batch import Segments
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.families.family import Family
from qwenvl_train.model.autocast import autocast, autocast_to
from qwenvl_train.model.pixels import Pixels
from qwenvl_train.model.tower import tower_digest, tower_states


def with_shared_features(model: PreTrainedModel, family: Family, image_processor: Any) -> Callable[[dict], dict]:
    """Return a function that replaces the media of a packed row by the features of the frozen vision tower.

    Several passes over the row can then share the features.
    """
    visual, to_pixels = model.get_submodule(family.vision_path), Pixels(image_processor)
    media = ("planes", "frame_pairs", "grids", "vision")

    def share_features(row: dict) -> dict:
        if "features" in row:
            return row
        pixels = to_pixels(row["planes"], row.get("frame_pairs")).to(visual.dtype)
        features = tower_states(visual, pixels, row["grids"], row["vision"])
        return {name: part for name, part in row.items() if name not in media} | {"features": features}

    return share_features


class VisionFeatureExtractor:
    def __init__(
        self,
        model: PreTrainedModel,
        family: Family,
        config: RunConfig,
        precision: str,
        image_processor: Any,
        device: torch.device,
    ):
        """`model` is the base model, and the weights of its vision tower must not be sharded."""
        self._visual, self._device = model.get_submodule(family.vision_path), device
        self._to_pixels = Pixels(image_processor)
        self._half = autocast_to(config, precision)
        normal = (image_processor.image_mean, image_processor.image_std, image_processor.rescale_factor)
        self.digest = tower_digest(model, family, precision, self._half, normal)
        self._visual.eval()
        if config.deepspeed.stage != 3:  # ZeRO-3 has already put the tower there
            self._visual.to(device)

    def __call__(
        self,
        planes: np.ndarray,
        frame_pairs: np.ndarray | None,
        grids: torch.Tensor,
        index: dict[str, torch.Tensor | Segments | int],
    ) -> torch.Tensor:
        """Return the features [levels, P, width] on the host. The arguments are those of a Batch."""
        given = (torch.from_numpy(planes), None if frame_pairs is None else torch.from_numpy(frame_pairs))
        given, grids, index = send_to_device((given, grids, index), self._device)
        pixels = self._to_pixels(*given).to(self._visual.dtype)
        with autocast(self._device.type, self._half):
            return tower_states(self._visual, pixels, grids, index).cpu()
