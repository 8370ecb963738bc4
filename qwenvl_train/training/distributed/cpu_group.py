"""Where all processes tell each other what only some of them know, aside from the device and its queue of work."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

Told = TypeVar("Told")


class CpuGroup:
    """Everyone must come to each of its calls. A run of one process meets itself."""

    def __init__(self, processes: int, wait: timedelta = timedelta(hours=1)):
        # The other processes' last work may be long: a report, generated answers.
        self._group = dist.new_group(backend="gloo", timeout=wait) if processes > 1 else None
        self.processes = processes

    def sum(self, mine: Sequence[int]) -> list[int]:
        if self._group is None:
            return list(mine)
        sums = torch.tensor(mine, dtype=torch.int64)
        dist.all_reduce(sums, group=self._group)
        return sums.tolist()

    def any(self, mine: bool) -> bool:
        return self.sum([int(mine)])[0] > 0

    def everything(self, mine: Sequence[Told]) -> list[Told]:
        """What each has to tell, in the order of processes."""
        if self._group is None:
            return list(mine)
        told: list[list[Told]] = [[] for _ in range(self.processes)]
        dist.all_gather_object(told, list(mine), group=self._group)
        return [item for items in told for item in items]
