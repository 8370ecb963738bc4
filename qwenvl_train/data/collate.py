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
    patches = [item.patches for item in rendered if item.patches is not None]
    if patches:
        batch["patches"] = torch.from_numpy(np.concatenate(patches))
        batch["grids"] = torch.tensor([size.grid for layout in layouts for size in layout.pictures])
    return batch
