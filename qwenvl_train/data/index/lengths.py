"""Measures the cost of every sample before the run, without decoding media, and checks every raw row in doing so."""

import zlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError, message_of


@dataclass(frozen=True)
class Problem:
    """A raw row that cannot be used, with the reason."""

    source: str
    line: int
    kind: Literal["broken", "too long"]
    reason: str = field(compare=False)
    """Not compared, because its wording may differ from that of the version that a run resumes from."""

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


@dataclass(frozen=True)
class Lengths:
    """The measured lengths of all samples. Each array is [samples] and holds zeros for samples that cannot be used."""

    tokens: np.ndarray
    """Number of tokens."""
    supervised: np.ndarray
    """Number of learned (supervised) tokens."""
    patches: np.ndarray
    """Number of patches that the vision tower processes."""
    media: np.ndarray
    """Number of pictures and clips."""
    shrunk: np.ndarray
    """1 if the media were shrunk so that the sample fits, else 0."""
    detailed: np.ndarray
    """Number of pictures with OpenAI's `detail`."""
    problems: tuple[Problem, ...] = ()
    """The problems of the samples that cannot be used, in the order of the samples."""

    @classmethod
    def of(cls, table: np.ndarray, problems: Iterable[Problem]) -> "Lengths":
        """Return the Lengths of a table, [columns, samples] with the columns of COLUMNS."""
        tokens, supervised, patches, media, shrunk, detailed = table
        return cls(tokens, supervised, patches, media, shrunk, detailed, tuple(problems))

    def table(self) -> np.ndarray:
        """Return the arrays as one table, [columns, samples] with the columns of COLUMNS."""
        return np.stack([getattr(self, name) for name in COLUMNS])

    def part(self, indices: np.ndarray) -> "Lengths":
        """Return the lengths of some of the samples. `indices` are sorted."""
        chosen = np.isin(np.flatnonzero(~self.usable), indices).tolist()
        problems = (problem for problem, its in zip(self.problems, chosen, strict=True) if its)
        return Lengths.of(self.table()[:, indices], problems)

    def digest(self) -> str:
        return f"{zlib.crc32(self.table().tobytes()):08x}"

    @property
    def usable(self) -> np.ndarray:
        return self.tokens > 0


COLUMNS = ("tokens", "supervised", "patches", "media", "shrunk", "detailed")
Measured = tuple[int, int, int, int, int, int]


class TooLong(UserError):
    """A sample with more tokens than data.max_length."""


class TooMany(UserError):
    """More raw rows cannot be used than data.max_skipped allows."""


class BrokenRow(UserError):
    """The first broken raw row that was found, if none may be skipped. There may be others after it."""


def refuse(problem: Problem, tolerated: frozenset[str]) -> None:
    if problem.kind not in tolerated:
        raise (BrokenRow if problem.kind == "broken" else UserError)(problem.reason)


def refuse_many(problems: Collection[Problem], max_problems: int | None) -> None:
    if max_problems is not None and len(problems) > max_problems:
        last = max(problems, key=lambda problem: (problem.source, problem.line))
        raise TooMany(
            f"{len(problems)} rows cannot be used, but data.max_skipped is {max_problems}; one of them: {last.reason}"
        )


def measure_rows(
    samples: Samples, renderer: Renderer, rows: range, tolerated: frozenset[str]
) -> tuple[np.ndarray, list[Problem]]:
    """Return the table of the samples in `rows`, [columns, rows], and the problems of those that cannot be used.

    Samples that are too long have their lengths in the table, too. Measuring stops at the first problem whose kind is
    not tolerated.
    """
    table = np.zeros((len(COLUMNS), len(rows)), dtype=np.int32)
    problems: list[Problem] = []
    for column, index in enumerate(rows):
        try:
            sample = samples[index]
            measured = _measured(sample, renderer)
            table[:, column] = measured
            refuse_long(sample, measured, renderer.max_length)
        except UserError as error:
            problems.append(problem_of(samples.origin(index), error))
            if problems[-1].kind not in tolerated:
                break
    return table, problems


def within_limits(
    lengths: Lengths, samples: Samples, max_length: int | None, tolerated: frozenset[str], max_problems: int | None
) -> Lengths:
    """Return `lengths` with every sample longer than `max_length` turned into a problem.

    Raise UserError for the first problem whose kind is not tolerated, and when there are more than `max_problems`.
    """
    broken = dict(zip(np.flatnonzero(~lengths.usable).tolist(), lengths.problems, strict=True))
    long = [] if max_length is None else np.flatnonzero(lengths.tokens > max_length).tolist()
    table = lengths.table() if long else None
    problems = []
    for index in sorted([*broken, *long]):
        if index in broken:
            problem = broken[index]
        else:
            assert table is not None
            problem = _long_problem(samples, index, tuple(table[:, index].tolist()), max_length)
            table[:, index] = 0
        refuse(problem, tolerated)
        problems.append(problem)
        refuse_many(problems, max_problems)
    return lengths if table is None else Lengths.of(table, problems)


def _long_problem(samples: Samples, index: int, measured: Measured, max_length: int | None) -> Problem:
    """Return the problem of a sample that is too long.

    The sample is read again, because the reason names its id, which is not in the index. It is not measured again.
    """
    try:
        refuse_long(samples[index], measured, max_length)
    except UserError as error:
        return problem_of(samples.origin(index), error)
    raise AssertionError(f"{samples.origin(index)} is not too long")


def problem_of(origin: tuple[str, int], error: UserError) -> Problem:
    """Return the Problem for an error in the raw row of `origin`, which is its source and line."""
    return Problem(*origin, "too long" if isinstance(error, TooLong) else "broken", message_of(error))


def measure_sample(sample: Sample, renderer: Renderer) -> Measured:
    """Return the COLUMNS of a sample. Raise UserError for a sample that cannot be trained on."""
    measured = _measured(sample, renderer)
    refuse_long(sample, measured, renderer.max_length)
    return measured


def _measured(sample: Sample, renderer: Renderer) -> Measured:
    if sample.rejected and renderer.preferences is False:
        raise UserError(
            f"{sample.where} is a preference row with a rejected answer; for supervised fine-tuning, keep only "
            "the better answer, or use a DPO recipe (+recipe=dpo_lora)."
        )
    if renderer.preferences and not sample.rejected:
        raise UserError(
            f"{sample.where} has one answer, but DPO compares two; add the rejected one "
            "('chosen' and 'rejected', or 'rejected_response'), or use an SFT recipe (+recipe=sft_lora)."
        )
    layout = renderer.layout(sample)
    if layout.supervised == 0:
        raise UserError(f"{sample.where} has no supervised token: its answers are empty.")
    detailed = sum(image.detail is not None for image in sample.images)
    return layout.length, layout.supervised, layout.patches, len(layout.media), int(layout.shrink < 1), detailed


def detail_by_source(lengths: Lengths, samples: Samples) -> dict[str, int]:
    """Return the number of pictures with OpenAI's `detail`, by the name of their source."""
    found: Counter[str] = Counter()
    for name, indices in samples.files():
        found[name] += int(lengths.detailed[indices.start : indices.stop].sum())
    return dict(found)


def refuse_long(sample: Sample, measured: Measured, max_length: int | None) -> None:
    """Raise UserError for a sample with more than `max_length` tokens."""
    tokens, *_, shrunk, _ = measured
    if max_length is not None and tokens > max_length:
        smallest = ", even with the smallest allowed media" if shrunk else ""
        raise TooLong(
            f"{sample.where} is {tokens} tokens long{smallest}, but data.max_length is {max_length}; "
            "raise it, lower model.max_pixels, set data.too_long to skip or downscale, or remove the row."
        )
