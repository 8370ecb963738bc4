"""Exchanges values between all processes on the CPU, without using the device or waiting for its queue of work."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")


class CpuGroup:
    """The CPU group of all processes. Every process must take part in each call. In a run of one process, a call
    returns that process's own values."""

    def __init__(self, processes: int, wait: timedelta = timedelta(hours=1)):
        # Another process may be busy for a long time with a report or with generated answers.
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

    def everything(self, mine: Sequence[Item]) -> list[Item]:
        """Return the items of all processes, in the order of processes."""
        if self._group is None:
            return list(mine)
        gathered: list[list[Item]] = [[] for _ in range(self.processes)]
        dist.all_gather_object(gathered, list(mine), group=self._group)
        return [item for items in gathered for item in items]
