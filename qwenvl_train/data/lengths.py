"""What every sample costs, known before the run without decoding a picture, and every row checked on the way."""

import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from qwenvl_train.data.render import Renderer
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError, message_of


@dataclass(frozen=True)
class Problem:
    """A row that cannot be used, and why."""

    source: str
    line: int
    kind: Literal["broken", "too long"]
    reason: str

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


@dataclass(frozen=True)
class Lengths:
    """Each [samples]; zeros where a row cannot be used."""

    tokens: np.ndarray
    supervised: np.ndarray
    patches: np.ndarray
    """What the vision tower sees."""
    media: np.ndarray
    """Pictures and clips."""
    shrunk: np.ndarray
    """Whether the media were made smaller, so that the sample fits."""
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, table: np.ndarray, problems: Iterable[Problem]) -> "Lengths":
        """`table` is [columns, samples]."""
        tokens, supervised, patches, media, shrunk = table
        return cls(tokens, supervised, patches, media, shrunk, tuple(problems))

    def table(self) -> np.ndarray:
        """[columns, samples]"""
        return np.stack([getattr(self, name) for name in COLUMNS])

    def digest(self) -> str:
        return f"{zlib.crc32(self.table().tobytes()):08x}"

    @property
    def usable(self) -> np.ndarray:
        return self.tokens > 0


COLUMNS = ("tokens", "supervised", "patches", "media", "shrunk")


class TooLong(UserError):
    pass


def measure_rows(
    samples: Samples, renderer: Renderer, rows: range, tolerated: frozenset[str]
) -> tuple[np.ndarray, list[Problem]]:
    """[columns, rows] and the rows that cannot be used, up to the first whose kind is not tolerated."""
    table = np.zeros((len(COLUMNS), len(rows)), dtype=np.int32)
    problems: list[Problem] = []
    for place, index in enumerate(rows):
        try:
            table[:, place] = measure_sample(samples[index], renderer)
        except UserError as error:
            problems.append(problem_of(samples.place(index), error))
            if problems[-1].kind not in tolerated:
                break
    return table, problems


def problem_of(place: tuple[str, int], error: UserError) -> Problem:
    """`place` is the source and the line."""
    return Problem(*place, "too long" if isinstance(error, TooLong) else "broken", message_of(error))


def measure_sample(sample: Sample, renderer: Renderer) -> tuple[int, int, int, int, int]:
    """Its COLUMNS. Raises a UserError for a row that cannot be trained on."""
    if sample.rejected:
        raise UserError(
            f"{sample.where} is a preference row, with an answer that was rejected; "
            "supervised fine-tuning learns from one answer, so keep the good one alone."
        )
    layout = renderer.layout(sample)
    if layout.supervised == 0:
        raise UserError(f"{sample.where} has no supervised token: its answers are empty.")
    if renderer.max_length is not None and layout.length > renderer.max_length:
        shrunk = ", even with its media at their smallest" if layout.shrink < 1 else ""
        raise TooLong(
            f"{sample.where} is {layout.length} tokens long{shrunk}, data.max_length is {renderer.max_length}; "
            "raise it, lower model.max_pixels, set data.too_long to skip or downscale, or leave the row out."
        )
    return layout.length, layout.supervised, layout.patches, len(layout.media), int(layout.shrink < 1)
