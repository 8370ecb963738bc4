"""The micro-batches of the current step on this process."""

from dataclasses import dataclass, field

import torch

from qwenvl_train.batch import Contents

Origin = tuple[str, int]
"""The source and the line of a sample."""


@dataclass(frozen=True)
class MicroBatch:
    """What is known of a micro-batch besides its tensors."""

    contents: Contents
    origins: tuple[Origin, ...]

    @property
    def tokens(self) -> int:
        return sum(self.contents.lengths)

    @property
    def patches(self) -> int:
        return sum(frames * height * width for frames, height, width in self.contents.grids)


@dataclass
class Window:
    """The micro-batches of one step, and the losses of those that have been computed."""

    step: int
    """The number of steps that are done when this one ends."""
    micro_batches: list[MicroBatch]
    losses: list[torch.Tensor] = field(default_factory=list)
    rehearsal: bool = False
    """Whether these are not of a step, but computed before the first one."""

    @property
    def current(self) -> MicroBatch | None:
        """The micro-batch that is being computed, or None after the last one."""
        number = len(self.losses)
        return self.micro_batches[number] if number < len(self.micro_batches) else None
