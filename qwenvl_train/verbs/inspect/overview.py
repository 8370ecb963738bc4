"""The figures of a whole source, or of the rows that a stream reads first. The figures of a whole source come from the
index of lengths, which training uses, too."""

from dataclasses import replace

import numpy as np

from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.lengths import Lengths, Problem, detail_by_source
from qwenvl_train.data.index.measure import MeasureOptions, lengths_of
from qwenvl_train.data.order.order import Order
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.streaming.head import Head
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.bar import counting
from qwenvl_train.reporting.wording import many
from qwenvl_train.run.rows import Fitted, detail_in_words, fit, mixture_in_words, tolerated_problems
from qwenvl_train.verbs.inspect.facts import Overview
from qwenvl_train.verbs.inspect.settings import InspectConfig

EVERY_KIND = frozenset({"broken", "too long"})
"""All kinds of problems. Inspect tolerates each of them, so that it can show any row."""


def overview_of(config: InspectConfig, rows: Samples | Head, renderer: Renderer) -> Overview:
    if isinstance(rows, Head):
        head = _overview(config, rows.lengths(), rows.extent, None, _fills_of_packs(config, rows.units))
        return replace(head, notes=renderer.thinking_in_words() + detail_in_words(rows.detailed()))
    whole = measured(config, rows, renderer)
    lengths, fitted = whole.lengths, _fitted(config, whole)
    notes = renderer.thinking_in_words() + detail_in_words(detail_by_source(lengths, rows))
    if fitted is None:
        return replace(_overview(config, lengths, "all rows", None, None), notes=notes)
    config, order = fitted.config, fitted.order
    per_epoch = order.rows(1)
    fills = _fills_of_rows(config, order, per_epoch, lengths)
    overview = _overview(config, lengths, "all rows", per_epoch, fills)
    return replace(overview, fitted=fitted.description, mixture=mixture_in_words(config, order), notes=notes)


def measured(config: InspectConfig, samples: Samples, renderer: Renderer) -> Rows:
    """Return the samples with their lengths. Every problem is tolerated."""
    options = MeasureOptions(config.cache_folder, config.data.workers, EVERY_KIND)
    with counting("measuring all rows", len(samples)) as progress:
        return Rows(samples, lengths_of(samples, renderer, options, progress), renderer)


def _overview(
    config: InspectConfig, lengths: Lengths, extent: str, rows_per_epoch: int | None, fills: np.ndarray | None
) -> Overview:
    return Overview(
        rows=len(lengths.tokens),
        lengths=lengths.tokens[lengths.usable],
        supervised=int(lengths.supervised.sum(dtype=np.int64)),
        media=int(lengths.media.sum(dtype=np.int64)),
        shrunk=int(lengths.shrunk.sum()),
        max_length=config.data.max_length,
        problems=[problem.reason for problem in lengths.problems],
        too_long=sum(problem.kind == "too long" for problem in lengths.problems),
        consequence=consequence(config, lengths.problems),
        ends_run=ends_run(config, lengths.problems),
        rows_per_epoch=rows_per_epoch,
        row=_row(config),
        fills=fills,
        extent=extent,
    )


def ends_run(config: InspectConfig, problems: tuple[Problem, ...]) -> bool:
    """Return whether these problems end a run before it trains."""
    tolerated = tolerated_problems(config)
    return len(problems) > config.data.max_skipped or any(problem.kind not in tolerated for problem in problems)


def consequence(config: InspectConfig, problems: tuple[Problem, ...]) -> str:
    """Return what a run does about rows that it cannot train on, in words."""
    tolerated = tolerated_problems(config)
    ending = [problem for problem in problems if problem.kind not in tolerated]
    if ending:
        key = "data.on_error" if ending[0].kind == "broken" else "data.too_long"
        return f"a run ends at the first of them ({key}=skip leaves them out)"
    if len(problems) > config.data.max_skipped:
        return f"a run ends, because they are more than data.max_skipped={config.data.max_skipped}"
    return "a run leaves them out and lists them in skipped.jsonl"


def _fitted(config: InspectConfig, rows: Rows) -> Fitted[InspectConfig] | None:
    """Return the configuration and the order of training on one device. Return None for held-out rows, which have no
    such order, and for an entry without a row to train on."""
    if config.inspect.source == "eval":
        return None
    try:
        return fit(config, rows, world=1)
    except UserError:
        # An entry has no row to train on. The overview lists its problems one by one.
        return None


def _row(config: InspectConfig) -> str:
    if config.data.packing:
        return f"{many(config.train.batch_size, 'packed row')} of up to {config.pack_length} tokens"
    return many(config.train.batch_size, "sample")


def _fills_of_rows(config: InspectConfig, order: Order, rows: int, lengths: Lengths) -> np.ndarray | None:
    if config.pack_length is None:
        return None
    room = config.pack_length * config.train.batch_size
    return np.array([lengths.tokens[order.row(row)].sum(dtype=np.int64) / room for row in range(rows)])


def _fills_of_packs(config: InspectConfig, tokens: np.ndarray) -> np.ndarray | None:
    if config.pack_length is None or len(tokens) == 0:
        return None
    return tokens / config.pack_length
