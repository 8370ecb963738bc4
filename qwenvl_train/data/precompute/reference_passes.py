"""Datasets for the reference model's log-probabilities: the file of each chunk, and the batches to compute. Workers
read both."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from qwenvl_train.batch import Batch
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.cache_files import identity, path_in
from qwenvl_train.data.index.lengths import Problem, problem_of
from qwenvl_train.data.precompute.references import CHUNK, samples_of
from qwenvl_train.errors import UserError

# Increase this when the same preference pairs get other values than before.
_RULE = 1


class Chunks(Dataset):
    """The file of each chunk, named by a hash of what the chunk's samples are now. Read by workers."""

    def __init__(self, rows: Rows, folder: Path, model: str):
        """`model` describes everything that the values depend on besides the samples."""
        self._rows, self._folder, self._model = rows, folder, model

    def __len__(self) -> int:
        return -(-len(self._rows.samples) // CHUNK)

    def __getitem__(self, chunk: int) -> Path:
        digest = hashlib.sha256()
        samples = samples_of(chunk, len(self._rows.samples))
        for index in range(samples.start, samples.stop):
            if self._rows.lengths.usable[index]:
                digest.update(self._facts(index))
        return path_in(self._folder, (_RULE, self._model, digest.hexdigest()))

    def _facts(self, index: int) -> bytes:
        try:
            sample = self._rows.samples[index]
            layout = self._rows.renderer.layout(sample)
            media = [identity(content) for medium in sample.media for content in medium.contents]
        except (UserError, OSError):
            return b"changed since it was measured"  # the pass that decodes the sample reports the error
        arrays = (layout.input_ids, layout.labels, layout.position_ids)
        return repr((layout.pieces, media, layout.media)).encode() + b"".join(array.tobytes() for array in arrays)


@dataclass(frozen=True)
class Pass:
    """Samples of one chunk that are computed together."""

    chunk: int
    samples: tuple[int, ...]


def passes_of(chunk: int, rows: Rows, room: int) -> list[Pass]:
    """Return the passes of a chunk. Each has as many samples as fit into `room` tokens, or one longer sample."""
    samples, tokens = samples_of(chunk, len(rows.samples)), rows.lengths.tokens
    cut: list[list[int]] = []
    filled = room
    for index in range(samples.start, samples.stop):
        if rows.lengths.usable[index]:
            if filled + tokens[index] > room:
                cut.append([])
                filled = 0
            cut[-1].append(index)
            filled += int(tokens[index])
    return [Pass(chunk, tuple(part)) for part in cut]


@dataclass(frozen=True)
class PassInput:
    """The input of a pass: the samples that could be decoded, and the problems of the others."""

    chunk: int
    batch: Batch | None
    """None if no sample could be decoded."""
    samples: tuple[int, ...]
    problems: tuple[Problem, ...]


class PassInputs(Dataset):
    """The input of each pass."""

    def __init__(self, rows: Rows, passes: list[Pass]):
        self._rows, self._passes = rows, passes

    def __len__(self) -> int:
        return len(self._passes)

    def __getitem__(self, number: int) -> PassInput:
        wanted = self._passes[number]
        rendered, samples, problems = [], [], []
        for index in wanted.samples:
            try:
                rendered.append(self._rows.rendered(index))
                samples.append(index)
            except UserError as error:
                problems.append(problem_of(self._rows.samples.origin(index), error))
        batch = collate(rendered, self._rows.renderer) if rendered else None
        return PassInput(wanted.chunk, batch, tuple(samples), tuple(problems))


def joined(chunk: int, values: dict[int, torch.Tensor], counts: np.ndarray) -> np.ndarray:
    """Return the values to store for a chunk, with NaN for each learned token of a sample without values."""
    samples = samples_of(chunk, len(counts))
    parts = [
        values[index].numpy() if index in values else np.full(counts[index], np.nan, dtype=np.float32)
        for index in range(samples.start, samples.stop)
    ]
    return np.concatenate(parts)
