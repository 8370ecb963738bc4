"""Functions that the verbs share: open data files, measure their samples once for all processes, and describe them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Generic, Literal, TypeVar

from accelerate import PartialState

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.lengths import BrokenRow, detail_by_source
from qwenvl_train.data.index.measure import MeasureOptions, lengths_of
from qwenvl_train.data.order.mixture import MixtureEntry
from qwenvl_train.data.order.order import Order, build_order
from qwenvl_train.data.order.step_size import FirstStart, MicroStep, StepSize, fitted_in_words, fitting, steps_of_epoch
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.render.template import as_template
from qwenvl_train.data.render.thoughts import check_mode
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.streaming.stream import Stream
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.reporting.bar import counting
from qwenvl_train.reporting.wording import many, percent
from qwenvl_train.training.distributed.agreement import refuse_differences
from qwenvl_train.training.distributed.store import call_on_main

Made = TypeVar("Made")
C = TypeVar("C", bound=RunConfig)

_FEW_STEPS = 10
_MORE_OF_THEM = "(There may be more: qwenvl-train inspect lists all, data.on_error=skip leaves them out.)"


def make_renderer(config: RunConfig, processor, family: Family, generates: bool = False) -> Renderer:
    """Return the renderer of a run. With `generates`, it is for answers that are generated, which need no rejected one,
    also if the run has learned from pairs."""
    where = f"model.path {config.model.path}"
    family = as_template(processor, family, where)
    check_mode(config.data.thinking, family, where)
    return renderer_of(config, processor, family, generates)


def renderer_of(config: RunConfig, processor, family: Family, generates: bool = False) -> Renderer:
    """Return the renderer of a run, without a check of the processor's chat template."""
    preferences = (None if generates else True) if config.method == "dpo" else False
    pictures = config.cache_folder / "pictures"
    return Renderer(processor, family, config.model.video, config.data, pictures, preferences)


def open_rows(
    config: RunConfig, key: Literal["data.train", "data.eval"], renderer: Renderer, state: PartialState
) -> Rows:
    """Return the rows of the data files, all of them checked. Show a progress bar on a terminal."""
    sources = config.data.train if key == "data.train" else config.data.eval_entries
    cache = config.cache_folder
    options = MeasureOptions(
        cache, config.data.workers, tolerated_problems(config), config.data.max_skipped, state.is_main_process
    )

    def build() -> Rows:
        samples = Samples(sources, key, config.data.allow_remote, cache)
        with counting(f"checking {key}", len(samples), shown=state.is_main_process) as progress:
            try:
                lengths = lengths_of(samples, renderer, options, progress)
            except BrokenRow as error:
                raise UserError(f"{error} {_MORE_OF_THEM}") from None
        if not lengths.usable.any():
            raise UserError(f"{key} has no usable row; the first problem: {lengths.problems[0].reason}")
        return Rows(samples, lengths, renderer)

    rows = first_then_others(state, build)
    found = {f"{key}: the digest of its samples": rows.lengths.digest()}
    refuse_differences(
        state, found, f"all must read the same files, and share data.cache ({cache}) or have one of theirs."
    )
    return rows


def tolerated_problems(config: RunConfig) -> frozenset[str]:
    """Return the kinds of problems for which a row is left out instead of ending the run."""
    skip = config.data.on_error == "skip"
    tolerated = {"broken": skip, "too long": skip or config.data.too_long == "skip"}
    return frozenset(kind for kind, yes in tolerated.items() if yes)


@dataclass(frozen=True)
class Fitted(Generic[C]):
    """A configuration whose size of a step is fitted to the data, with the order of these data."""

    config: C
    order: Order
    description: str | None
    """A line that says what was chosen, or None if the size is the largest one, or that of a run that resumes."""


def fit(config: C, train: Rows, world: int, first: FirstStart | None = None) -> Fitted[C]:
    """Fit the settings that are auto to the data. With `first`, use the size of the steps of a run that resumes."""
    # If a sample is longer than the packed rows of that run, its data have changed, and it cannot resume anyway.
    if first is not None and int(train.lengths.tokens.max()) <= (first.step.pack_length or sys.maxsize):
        config = first.in_config(config, world)
        return Fitted(config, make_order(config, train, first.micro_step), None)
    micro_step = MicroStep.of(config, world)
    order = make_order(config, train, micro_step)
    size = fitting(config, order, train.lengths, world)
    if size == StepSize.of(config):
        return Fitted(size.in_config(config), order, None)
    fitted = size.in_config(config)
    its_order = make_order(fitted, train, micro_step)
    steps = steps_of_epoch(config, order, world), steps_of_epoch(fitted, its_order, world)
    return Fitted(fitted, its_order, fitted_in_words(config, fitted, steps))


def make_order(config: RunConfig, train: Rows, micro_step: MicroStep) -> Order:
    longest = int(train.lengths.tokens.argmax())
    if config.pack_length is not None and train.lengths.tokens[longest] > config.pack_length:
        source, line = train.samples.origin(longest)
        raise UserError(
            f"{source}:{line} is {train.lengths.tokens[longest]} tokens long, but data.pack_length is "
            f"{config.pack_length}; raise it, or lower data.max_length."
        )
    entries = [
        MixtureEntry(entry.start, entry.stop, entry.config.weight, entry.config.repeats)
        for entry in train.samples.entries
    ]
    return build_order(train.lengths, entries, train.lengths.usable, config, micro_step)


def steps_of(config: RunConfig, order: Order, rows_per_step: int) -> int:
    """Return the number of steps of the run. Raise UserError if it is 0, or if the warm-up takes all steps. With
    train.max_steps, the warm-up was already checked with the configuration."""
    train = config.train
    steps = train.max_steps or ceil(order.rows(train.epochs or 0) / rows_per_step)
    if steps == 0:
        raise UserError(f"train.epochs={train.epochs:g} gives no step with so few samples; raise it.")
    if 1 <= train.warmup >= steps:
        raise UserError(f"train.warmup={train.warmup:.0f} must be below the {steps} steps of this run.")
    return steps


def first_then_others(state: PartialState, build: Callable[[], Made]) -> Made:
    """Return the result of `build`. The main process calls it first, and the other processes then find its work in the
    cache. If it fails on the main process, all processes raise the same UserError."""
    return call_on_main(state, build) or build()


def about_data(
    config: RunConfig, train: Rows, held_out: Rows | None, order: Order, steps: int, rows_per_step: int
) -> str:
    tokens, longest = int(train.lengths.tokens.sum()), int(train.lengths.tokens.max())
    usable = int(train.lengths.usable.sum())
    taken = order.seen(steps * rows_per_step)
    lines = [*train.samples.describe()]
    lines.append(
        f"{usable:,} samples, {tokens:,} tokens (longest sample {longest:,}), "
        f"{int(train.lengths.media.sum()):,} images and videos{_evaluated(held_out)}"
    )
    if shrunk := int(train.lengths.shrunk.sum()):
        lines.append(f"{shrunk:,} samples have downscaled media to fit into data.max_length")
    lines += train.renderer.thinking_in_words()
    lines += detail_in_words(detail_by_source(train.lengths, train.samples))
    if train.lengths.problems:
        lines.append(f"{many(len(train.lengths.problems), 'row')} cannot be used: skipped.jsonl lists them")
    lines += mixture_in_words(config, order)
    each = taken.samples / steps
    of_each = "1 sample" if each == 1 else f"{each:,.4g} samples"
    if config.pack_length is not None:
        packs = rows_per_step * config.train.batch_size
        full = percent(taken.tokens / (steps * packs * config.pack_length))
        of_each += f" in {many(packs, 'packed row')} of {config.pack_length:,} tokens, {full} filled"
    lines.append(f"{many(steps, 'step')} of {of_each}; {taken.epoch:.2f} epochs")
    if steps < _FEW_STEPS and config.train.max_steps is not None:
        lines.append("So few steps change the model little. For more steps, raise train.max_steps.")
    elif steps < _FEW_STEPS and config.data.packing:
        lines.append(
            "So few steps change the model little. For more steps, lower data.pack_length or train.accumulation, "
            "raise train.epochs, or set data.packing=false."
        )
    return "\n".join(lines)


def mixture_in_words(config: RunConfig, order: Order) -> list[str]:
    """Return a line with the number of samples that an epoch takes of each entry, or no line if no entry has a weight
    or repeats."""
    if not any(entry.weight or entry.repeats for entry in config.data.train):
        return []
    taken = zip(config.data.train, order.samples_per_entry(), strict=True)
    return ["an epoch has " + ", ".join(f"{many(count, 'sample')} of {entry.path}" for entry, count in taken)]


def detail_in_words(detailed: dict[str, int]) -> list[str]:
    """Return a line for each source with pictures that have OpenAI's `detail`. `detailed` holds their number, by the
    name of the source."""
    return [
        f"{name}: {many(pictures, 'image')} with detail; low limits an image to 512 × 512 pixels, high and auto keep "
        "the model's limits"
        for name, pictures in detailed.items()
        if pictures
    ]


def about_stream(config: RunConfig, stream: Stream, held_out: Rows | None, steps: int, rows_per_step: int) -> str:
    first = stream.first
    lines = [*stream.describe()]
    lines.append(
        f"the number of samples is not known; the first {len(first.tokens):,} have {int(first.tokens.sum()):,} "
        f"tokens (longest sample {int(first.tokens.max(initial=0)):,}){_evaluated(held_out)}"
    )
    lines += detail_in_words(first.detailed)
    if first.problems:
        lines.append(f"{len(first.problems):,} of the first rows cannot be used: skipped.jsonl lists them")
    units = rows_per_step * config.train.batch_size
    what = f"packed rows of up to {config.pack_length:,} tokens" if config.pack_length else "samples"
    lines.append(f"{steps:,} steps of {units:,} {what}")
    return "\n".join(lines)


def _evaluated(held_out: Rows | None) -> str:
    return f"; {many(int(held_out.lengths.usable.sum()), 'held-out sample')}" if held_out else ""
