"""Generates the answers to many held-out samples, in groups of similar length that workers read ahead."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from qwenvl_train.config.entries import entry_names
from qwenvl_train.data.batches.loader import Rows, ignore_terminal_signals
from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.data.sample import Image, Sample, Video
from qwenvl_train.data.spread import spread
from qwenvl_train.evaluation.batches import batches_of, in_halves
from qwenvl_train.evaluation.generation import Answer, AnswerGenerator, RequestRow, plain_regions, request_row

Row = dict[str, Any]
"""A row of predictions.jsonl: a request, and the generated answer."""


@dataclass(frozen=True)
class Group:
    """Samples that are answered together."""

    indices: tuple[int, ...]
    samples: tuple[Sample, ...]
    row: RequestRow


class Groups(Dataset):
    """Makes the packed row of each group when it is read."""

    def __init__(self, rows: Rows, tokenizer: Any, groups: Sequence[Sequence[int]]):
        self._rows, self._tokenizer, self._groups = rows, tokenizer, groups

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, number: int) -> Group:
        indices = tuple(self._groups[number])
        samples = tuple(self._rows.samples[index] for index in indices)
        return Group(indices, samples, request_row(samples, self._rows.renderer, self._tokenizer))


def samples_to_answer(rows: Rows, count: int | None, seed: int, among: Sequence[int] | None = None) -> list[int]:
    """Return the indices of all usable samples, or of `count` of them, spread over the files. `among` are the indices
    to choose from, all usable ones by default."""
    usable = rows.lengths.usable.nonzero()[0] if among is None else np.array(sorted(among), dtype=int)
    if count is None:
        return usable.tolist()
    files = [usable[(usable >= mine.start) & (usable < mine.stop)].tolist() for _, mine in rows.samples.files()]
    return spread(files, count, seed)


def answers_to(
    rows: Rows, groups: Sequence[Sequence[int]], generate: AnswerGenerator, workers: int
) -> Iterator[tuple[list[Row], list[Problem]]]:
    """Yield the rows of predictions.jsonl for each group, with the samples that could not be decoded."""
    loader = DataLoader(
        Groups(rows, generate.tokenizer, groups), None, num_workers=workers, worker_init_fn=ignore_terminal_signals
    )
    for group in loader:
        found = _answered(group, rows, generate)
        places = {
            (sample.source, sample.line): index for index, sample in zip(group.indices, group.samples, strict=True)
        }
        indices = [places[answer.request.sample.source, answer.request.sample.line] for answer in found]
        yield rows_of(found, indices, rows), list(group.row.problems)


def _answered(group: Group, rows: Rows, generate: AnswerGenerator) -> list[Answer]:
    def answers(samples: Sequence[Sample]) -> list[Answer]:
        whole = len(samples) == len(group.samples)
        return generate(group.row if whole else request_row(samples, rows.renderer, generate.tokenizer))

    return in_halves(group.samples, answers, lambda sample: sample.where)


def rows_of(answers: Sequence[Answer], indices: Sequence[int], rows: Rows) -> list[Row]:
    """Return the rows of predictions.jsonl of some answers. `indices` has the index of the sample of each answer. The
    answers to a sample are all there, those to its last turn at the end."""
    entry_of = _entries_of(rows)
    turns = {index: answer.request.turn for index, answer in zip(indices, answers, strict=True)}
    return [
        {"index": index, "turns": turns[index], "entry": entry_of(index), **row_of(answer)}
        for index, answer in zip(indices, answers, strict=True)
    ]


def row_of(answer: Answer) -> Row:
    """Return the facts about an answer that metrics and readers need."""
    request, sample = answer.request, answer.request.sample.chosen_conversation
    media = [(kind, part) for part in sample.media for kind in (Image, Video) if isinstance(part, kind)]
    row: Row = {
        "id": sample.id,
        "source": sample.source,
        "line": sample.line,
        "turn": request.turn,
        "images": [media_name(part) for kind, part in media if kind is Image],
        "videos": [media_name(part) for kind, part in media if kind is Video],
        "prompt": request.text,
        "expected": request.expected,
        "answer": answer.text,
        "tokens": answer.tokens,
        "ended": answer.ended,
    }
    if answer.drawn.seed is not None:
        row |= {"try": answer.drawn.number, "seed": answer.drawn.seed}
    if request.rejected is not None:
        row["rejected"] = request.rejected
    if request.accepted:
        row["accepted"] = list(request.accepted)
    if request.targets:
        row["targets"] = [list(box) for box in request.targets]
    if sample.episode:
        row["episode"] = asdict(sample.episode)
    if sample.metrics:
        row["metrics"] = list(sample.metrics)
    if request.picture is not None:
        row["picture"] = {"original": list(request.picture.original), "resized": list(request.picture.resized)}
    regions = {"expected": plain_regions(answer.expected_regions), "answer": plain_regions(answer.regions)}
    if any(regions.values()):
        row["regions"] = regions
    return row


def media_name(media: Image | Video) -> Any:
    """Return the path of a picture or clip, or of its frames. Media inside the data file have none."""
    contents = [content if isinstance(content, str) else None for content in media.contents]
    return contents if isinstance(media, Video) and isinstance(media.content, tuple) else contents[0]


def _entries_of(rows: Rows) -> Callable[[int], str]:
    names = entry_names([entry.config for entry in rows.samples.entries])

    def entry_of(index: int) -> str:
        return next(
            name for name, entry in zip(names, rows.samples.entries, strict=True) if entry.start <= index < entry.stop
        )

    return entry_of


def groups_of(rows: Rows, indices: Sequence[int], size: int) -> list[list[int]]:
    return batches_of(indices, rows.lengths.tokens, size)


def fitting_batch_size(model: torch.nn.Module, longest: int, free_bytes: int | None) -> int:
    """Return how many answers to decode together.

    Args:
        longest: The largest number of tokens of a question and its answer.
        free_bytes: The free memory of the device, or None for the memory of the host.
    """
    if free_bytes is None:
        return 32
    text = model.config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    # Keys and values of each layer. Those of one layer exist twice while they are copied.
    each = 2 * text.num_hidden_layers * text.num_key_value_heads * head * model.dtype.itemsize * longest
    return max(1, min(128, int(0.6 * free_bytes) // each))
