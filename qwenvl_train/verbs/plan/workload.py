"""The rows and steps of a planned run, from the index of lengths or from the beginning of a stream."""

from dataclasses import dataclass
from math import ceil

import numpy as np
from accelerate import PartialState

from qwenvl_train.data.index.lengths import Lengths
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.streaming.head import read_head
from qwenvl_train.errors import UserError
from qwenvl_train.model.flops import FlopCount, Flops
from qwenvl_train.planning.memory import Load
from qwenvl_train.planning.work import LOOKED, flops_of_step, largest_pass, largest_sample, looked_at
from qwenvl_train.run.held_out import split, split_in_words
from qwenvl_train.run.rows import fit, open_rows, steps_of, tolerated_problems
from qwenvl_train.verbs.plan.settings import PlanConfig


@dataclass(frozen=True)
class Dataset:
    """The sizes of data.train, or of the rows that a stream reads first."""

    rows: int
    """Number of rows, usable or not."""
    samples: int
    """Number of rows that can be trained on."""
    tokens: int
    supervised: int
    """Number of learned tokens."""
    visual: int
    """Number of visual tokens."""
    media: int
    """Number of pictures and clips."""
    longest: int
    """Number of tokens in the longest sample."""


@dataclass(frozen=True)
class Workload:
    """The work of a planned run. Figures that are not known are None."""

    config: PlanConfig
    """The configuration, with the size of a step that is fitted to the data."""
    fitted: str | None
    """A line that says how the size of a step was fitted, or None if it is the largest one."""
    source: str
    """Where the figures come from: "index" or "head"."""
    descriptions: tuple[str, ...]
    """Lines that describe the files."""
    dataset: Dataset
    rows_per_epoch: int | None
    rows_per_step: int
    steps: int | None
    samples_per_step: float | None
    epochs: float | None
    fill: float | None
    """Share of the room in packs that tokens fill."""
    load: Load
    """The largest numbers of tokens, patches and supervised tokens in any pass."""
    least: Load
    """The largest numbers of tokens, patches and supervised tokens in any sample. A pass of any size must hold them."""
    flops: Flops
    """Floating-point operations of a step."""


def counted(config: PlanConfig, renderer: Renderer, count: FlopCount, state: PartialState) -> Workload:
    """Return the workload from the index of lengths. The index is made as in training, which can then use it."""
    rows = open_rows(config, "data.train", renderer, state)
    descriptions = rows.samples.describe()
    if config.data.eval_share is not None:
        rows, evaluated = split(config, rows, state)
        descriptions.append(split_in_words(config, evaluated))
    fitted = fit(config, rows, config.plan.devices)
    config, order = fitted.config, fitted.order
    rows_per_step = config.accumulation * config.plan.devices
    steps = steps_of(config, order, rows_per_step)
    lengths, per_epoch = rows.lengths, order.rows(1)
    taken = order.seen(steps * rows_per_step)
    room = _room(config)
    return Workload(
        config=config,
        fitted=fitted.description,
        source="index",
        descriptions=tuple(descriptions),
        dataset=_dataset(lengths, renderer),
        rows_per_epoch=per_epoch,
        rows_per_step=rows_per_step,
        steps=steps,
        samples_per_step=taken.samples / steps,
        epochs=taken.epoch,
        fill=None if room is None else taken.tokens / (steps * rows_per_step * room),
        load=largest_pass(lengths, order),
        least=largest_sample(lengths),
        flops=flops_of_step(count, looked_at(rows, order), taken.tokens / steps),
    )


def streamed(config: PlanConfig, renderer: Renderer, count: FlopCount) -> Workload:
    """Return the workload from the beginning of a stream, which stands for the whole stream."""
    head = read_head(config, renderer, config.cache_folder, tolerated_problems(config))
    lengths = head.lengths()
    usable = np.flatnonzero(lengths.usable)
    if len(usable) == 0:
        raise UserError(f"data.train has no usable row; the first problem: {lengths.problems[0].reason}")
    rows_per_step, room = config.accumulation * config.plan.devices, _room(config)
    dataset = _dataset(lengths, renderer)
    tokens = float(head.units.mean()) * config.train.batch_size
    most = int(head.units.max()) * config.train.batch_size
    chosen = usable[:: max(1, len(usable) // LOOKED)]
    looked = ([renderer.layout(head[index])] for index in chosen.tolist())
    return Workload(
        config=config,
        fitted=None,
        source="head",
        descriptions=tuple(head.describe()),
        dataset=dataset,
        rows_per_epoch=None,
        rows_per_step=rows_per_step,
        steps=config.train.max_steps,
        samples_per_step=rows_per_step * tokens * dataset.samples / dataset.tokens,
        epochs=None,
        fill=None if room is None else tokens / room,
        load=scaled(Load(dataset.tokens, int(lengths.patches.sum()), dataset.supervised), most / dataset.tokens),
        least=largest_sample(lengths),
        flops=flops_of_step(count, looked, rows_per_step * tokens),
    )


def scaled(load: Load, share: float) -> Load:
    return Load(ceil(load.tokens * share), ceil(load.patches * share), ceil(load.supervised * share))


def _room(config: PlanConfig) -> int | None:
    """Return the number of tokens that a packed row has room for, or None without packing."""
    return config.pack_length and config.pack_length * config.train.batch_size


def _dataset(lengths: Lengths, renderer: Renderer) -> Dataset:
    return Dataset(
        rows=len(lengths.tokens),
        samples=int(lengths.usable.sum()),
        tokens=int(lengths.tokens.sum(dtype=np.int64)),
        supervised=int(lengths.supervised.sum(dtype=np.int64)),
        visual=int(lengths.patches.sum(dtype=np.int64)) // renderer.pixels.merge**2,
        media=int(lengths.media.sum(dtype=np.int64)),
        longest=int(lengths.tokens.max()),
    )
