"""Values that the vision tower would compute from picture sizes in every pass, computed where packed rows are made.

They are computed by transformers' own functions, and its vision towers accept the results by these names.
"""

from dataclasses import dataclass

import torch
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from qwenvl_train.batch import Segments
from qwenvl_train.data.render.segments import segments_of


@dataclass(frozen=True)
class VisionIndex:
    merge: int
    patch: int
    window: int | None
    """Side of a window in pixels if most blocks of the vision tower attend within windows, else None."""
    positions: int | None
    """Side of the square of trained position embeddings that is stretched over each picture, or None without one."""

    def __call__(self, grids: torch.Tensor) -> dict[str, torch.Tensor | Segments | int]:
        """Return the vision tower's arguments for `grids` ([M, 3], in patches), by argument name."""
        frames = segments_of(get_vision_cu_seqlens(grids).diff().tolist())
        index: dict[str, torch.Tensor | Segments | int] = {
            "position_ids": get_vision_position_ids(grids, self.merge),
            "cu_seqlens": frames,
            "max_seqlen": frames.longest,
        }
        if self.window is not None:
            order, borders = get_vision_window_index(grids, self.merge, self.window, self.patch)
            windows = segments_of(borders.diff().tolist())
            index |= {"window_index": order, "cu_window_seqlens": windows, "max_window_seqlen": windows.longest}
        if self.positions is not None:
            at, weights = get_vision_interpolation_indices_and_weights(
                grids, self.positions, align_corners=True, spatial_merge_size=self.merge
            )
            index |= {"interp_indices": at, "interp_weights": weights}
        return index
