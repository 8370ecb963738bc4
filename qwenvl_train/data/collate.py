"""From rendered samples to one Batch."""

import numpy as np
import torch

from qwenvl_train.batch import Batch
from qwenvl_train.data.render import IGNORED, Rendered, Renderer
from qwenvl_train.data.segments import segments_of


def collate(rendered: list[Rendered], renderer: Renderer) -> Batch:
    layouts = [item.layout for item in rendered]
    # The last token of one sample must not be taught to predict the first of the next.
    assert all(layout.labels[0] == IGNORED for layout in layouts)
    ids = np.concatenate([layout.input_ids for layout in layouts])
    labels = np.concatenate([layout.labels for layout in layouts])
    batch = Batch(
        input_ids=torch.from_numpy(ids)[None],
        labels=torch.from_numpy(labels)[None],
        learned=torch.from_numpy(np.flatnonzero(labels != IGNORED)),
        position_ids=torch.from_numpy(np.concatenate([layout.position_ids for layout in layouts], axis=1))[:, None],
        samples=segments_of(layout.length for layout in layouts),
        places=torch.from_numpy(np.flatnonzero((ids == renderer.image_pad) | (ids == renderer.video_pad))),
    )
    if renderer.features is None:
        return _with_planes(batch, rendered, renderer)
    features = [item.features for item in rendered if item.features is not None]
    if not features:
        features = [renderer.features.blank(renderer.pixels.merge**2)]
    batch["features"] = torch.cat(features, dim=1) if len(features) > 1 else features[0]
    return batch


def _with_planes(batch: Batch, rendered: list[Rendered], renderer: Renderer) -> Batch:
    layouts = [item.layout for item in rendered]
    grids = [size.grid for layout in layouts for size in layout.media]
    planes = [item.planes for item in rendered if item.planes is not None]
    if not planes:
        planes, grids = [renderer.blank_planes()], [(1, renderer.pixels.merge, renderer.pixels.merge)]
    batch["planes"] = torch.from_numpy(np.concatenate(planes) if len(planes) > 1 else planes[0])
    batch["grids"] = torch.tensor(grids)
    batch["vision"] = renderer.vision_index(batch["grids"])
    if any(layout.clips for layout in layouts):
        starts = np.cumsum([0, *map(len, planes)])
        pairs = [item.pairs for item in rendered if item.pairs is not None]
        shifted = [pair + start for pair, start in zip(pairs, starts, strict=False)]
        batch["pairs"] = torch.from_numpy(np.concatenate(shifted).astype(np.int32))
    return batch
