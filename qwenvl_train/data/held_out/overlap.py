"""Counts what data.train and data.eval have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from qwenvl_train.data.held_out.contents import SampleContent


@dataclass(frozen=True)
class Overlap:
    """The numbers of held-out samples, and of different images and videos in them, and how many are trained on, too."""

    samples: int
    of_samples: int
    media: int
    of_media: int


def overlap(train: Sequence[SampleContent], held_out: Sequence[SampleContent], same: Sequence[int]) -> Overlap:
    """Return what both have in common. `same` gives each media file the number of the first file with the same
    bytes."""

    def media(contents: Sequence[SampleContent]) -> set[int]:
        return {same[number] for content in contents for number in content.media}

    def key(content: SampleContent) -> tuple[bytes, tuple[int, ...]]:
        return content.text, tuple(same[number] for number in content.media)

    trained, evaluated = set(map(key, train)), media(held_out)
    return Overlap(
        samples=sum(key(content) in trained for content in held_out),
        of_samples=len(held_out),
        media=len(evaluated & media(train)),
        of_media=len(evaluated),
    )
