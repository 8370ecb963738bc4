"""From rendered samples to one Batch."""

import numpy as np
import torch

from qwenvl_train.batch import Batch
from qwenvl_train.data.render import IGNORED, Rendered


def collate(rendered: list[Rendered]) -> Batch:
    layouts = [item.layout for item in rendered]
    # The last token of one sample must not be taught to predict the first of the next.
    assert all(layout.labels[0] == IGNORED for layout in layouts)
    lengths = [layout.length for layout in layouts]
    batch = Batch(
        input_ids=torch.from_numpy(np.concatenate([layout.input_ids for layout in layouts]))[None],
        labels=torch.from_numpy(np.concatenate([layout.labels for layout in layouts]))[None],
        position_ids=torch.from_numpy(np.concatenate([layout.position_ids for layout in layouts], axis=1))[:, None],
        cu_seqlens=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32),
        max_seqlen=max(lengths),
    )
    planes = [item.planes for item in rendered if item.planes is not None]
    if planes:
        batch["planes"] = torch.from_numpy(np.concatenate(planes) if len(planes) > 1 else planes[0])
        batch["grids"] = torch.tensor([size.grid for layout in layouts for size in layout.media])
    if any(layout.clips for layout in layouts):
        starts = np.cumsum([0, *map(len, planes)])
        pairs = [item.pairs for item in rendered if item.pairs is not None]
        shifted = [pair + start for pair, start in zip(pairs, starts, strict=False)]
        batch["pairs"] = torch.from_numpy(np.concatenate(shifted).astype(np.int32))
    return batch
