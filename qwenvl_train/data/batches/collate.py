"""Combines rendered samples into one Batch."""

from collections.abc import Collection

import numpy as np
import torch

from qwenvl_train.batch import Batch, Parts
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.render.segments import segments_of_samples


def collate(rendered: list[Rendered], renderer: Renderer, stops: Collection[int] = ()) -> Batch:
    """Return the packed row of some samples.

    Args:
        stops: The ends of the prompts that an answer is to be generated from, as positions in the packed row.
    """
    layouts = [item.layout for item in rendered]
    # The last token of one sample must not be taught to predict the first of the next.
    assert all(layout.labels[0] == IGNORED for layout in layouts)
    starts = np.cumsum([0, *(layout.length for layout in layouts)])[:-1]
    ids = np.concatenate([layout.input_ids for layout in layouts])
    predictor_positions = np.concatenate(
        [layout.predictor_positions + start for layout, start in zip(layouts, starts, strict=True)]
    )
    labels = np.concatenate([layout.labels for layout in layouts])
    batch = Batch(
        input_ids=torch.from_numpy(ids)[None],
        labels=torch.from_numpy(labels)[None],
        learned=torch.from_numpy(np.flatnonzero(labels != IGNORED)),
        predictor_positions=torch.from_numpy(predictor_positions),
        position_ids=torch.from_numpy(np.concatenate([layout.position_ids for layout in layouts], axis=1))[:, None],
        samples=segments_of_samples([layout.pieces for layout in layouts], renderer.family.linear_attention, stops),
        placeholder_positions=torch.from_numpy(
            np.flatnonzero((ids == renderer.image_pad) | (ids == renderer.video_pad))
        ),
    )
    if entries := [item.entry for item in rendered if item.entry is not None]:
        learned = torch.tensor([layout.supervised for layout in layouts])
        batch["sources"] = torch.tensor(entries).repeat_interleave(learned)
    if renderer.preferences:
        batch.update(_answers(rendered))
    batch.update(_planes(rendered, renderer) if renderer.features is None else _features(rendered, renderer))
    return batch


def _answers(rendered: list[Rendered]) -> Parts:
    answers = torch.tensor([count for item in rendered for count in item.layout.answers], dtype=torch.long)
    parts = Parts(answers=answers, answer_of=torch.arange(len(answers)).repeat_interleave(answers))
    if references := [item.reference for item in rendered if item.reference is not None]:
        parts["reference"] = torch.from_numpy(np.concatenate(references))
    return parts


def _features(rendered: list[Rendered], renderer: Renderer) -> Parts:
    assert renderer.features is not None
    features = [item.features for item in rendered if item.features is not None]
    if not features:
        features = [renderer.features.blank(renderer.pixels.merge**2)]
    return Parts(features=torch.cat(features, dim=1) if len(features) > 1 else features[0])


def _planes(rendered: list[Rendered], renderer: Renderer) -> Parts:
    grids = [size.grid for item in rendered for size in item.layout.media]
    planes = [item.planes for item in rendered if item.planes is not None]
    if not planes:
        planes, grids = [renderer.blank_planes()], [(1, renderer.pixels.merge, renderer.pixels.merge)]
    shapes = torch.tensor(grids)
    parts = Parts(
        planes=torch.from_numpy(np.concatenate(planes) if len(planes) > 1 else planes[0]),
        grids=shapes,
        vision=renderer.vision_index(shapes),
    )
    if any(item.layout.clips for item in rendered):
        begins = np.cumsum([0, *map(len, planes)])
        frame_pairs = [item.frame_pairs for item in rendered if item.frame_pairs is not None]
        shifted = [pair + begin for pair, begin in zip(frame_pairs, begins, strict=False)]
        parts["frame_pairs"] = torch.from_numpy(np.concatenate(shifted).astype(np.int32))
    return parts
