"""Rows on demand, in the shape that each consumer asks for."""

from dataclasses import dataclass

import torch
from datasets import Dataset as HfDataset

from qwenvl_train.batch import Batch
from qwenvl_train.data.collate import collate
from qwenvl_train.data.order import samples_of_row
from qwenvl_train.data.render import Renderer
from qwenvl_train.data.samples import Samples


@dataclass(frozen=True)
class TrainRows:
    """Row i of the run, for any i; workers get this object and paths, never pictures."""

    samples: Samples
    renderer: Renderer
    batch_size: int
    seed: int

    def __getitem__(self, row: int) -> Batch:
        indices = samples_of_row(row, self.batch_size, len(self.samples), self.seed)
        return collate([self.renderer.render(self.samples[index]) for index in indices])

    def as_dataset(self, rows: int) -> HfDataset:
        """TRL's trainers accept a `datasets.Dataset` only; this one counts rows and makes them when read."""

        def load(columns: dict[str, list[int]]) -> dict[str, list[Batch]]:
            return {"row": [self[row] for row in columns["row"]]}

        return HfDataset.from_dict({"row": range(rows)}).with_transform(load)


def only_row(items: list[dict[str, Batch]]) -> Batch:
    """The collator of a loader whose items are whole rows."""
    (item,) = items
    return item["row"]


class EvalRows(torch.utils.data.Dataset):
    """This process's share of the evaluation set, in file order.

    Every process gets the same number of rows, since sharded models must be called equally often;
    a row that only fills up counts for nothing.
    """

    def __init__(self, samples: Samples, renderer: Renderer, batch_size: int, rank: int, world: int):
        self._samples, self._renderer = samples, renderer
        starts = range(0, len(samples), batch_size)
        rows = [range(start, min(start + batch_size, len(samples))) for start in starts]
        mine = rows[rank::world]
        most = -(-len(rows) // world)
        self._rows = mine + [rows[0]] * (most - len(mine))
        self._counted = len(mine)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Batch, bool]:
        batch = collate([self._renderer.render(self._samples[place]) for place in self._rows[index]])
        return batch, index < self._counted
