"""Computes and stores the reference model's log-probabilities before a run with dpo.reference=cached.

They depend only on the published weights and the preference pairs, so a resumed run, or another run on the same pairs,
reuses them. Each process computes its share. A start that is killed leaves complete files, and the next start computes
only the missing ones.
"""

import gc
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from math import ceil

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from qwenvl_train.data.batches.loader import Rows, ignore_terminal_signals
from qwenvl_train.data.cache_files import make_folder
from qwenvl_train.data.precompute.reference_passes import Chunks, PassInput, PassInputs, joined, passes_of
from qwenvl_train.data.precompute.references import References
from qwenvl_train.model.autocast import autocast, autocast_to
from qwenvl_train.model.build import build_copy, in_float32
from qwenvl_train.model.load import identity_of
from qwenvl_train.model.tower import package_versions
from qwenvl_train.reporting.bar import counting
from qwenvl_train.reporting.console import print_line
from qwenvl_train.reporting.wording import many
from qwenvl_train.run.context import RunContext
from qwenvl_train.training.skipped import Skipped, UnusableRows

_ROOM = 8192
"""Number of tokens that limits the size of a pass if there are no packed rows and data.max_length is not set."""


def store_references(sources: dict[str, Rows], context: RunContext, skipped: Skipped) -> dict[str, Rows]:
    """Return the rows of each key with their stored log-probabilities. All processes must call this together. It
    returns when everything is stored and the model is freed."""
    held, model = {}, None
    for key, rows in sources.items():
        references = _places(rows, context)
        if missing := _missing(key, references, context):
            model = model or _copy(context)
            _fill(missing, rows, references, model, context, skipped)
        held[key] = rows.with_references(references)
    if model is not None:
        del model
        gc.collect()  # the model's forward methods are bound to it, so it is part of a reference cycle
        torch.cuda.empty_cache()
    return held


def _copy(context: RunContext) -> PreTrainedModel:
    copy = build_copy(context.config, context.family, context.processor, context.precision)
    return copy.eval().to(context.device)


def _missing(key: str, references: References, context: RunContext) -> list[int]:
    """Return the chunks that are not stored yet. The result is the same on all processes."""
    chunks = range(len(references.files))
    missing = [chunk for chunk in chunks if not references.holds(chunk)]
    # A chunk that is missing on one process counts as missing on all, even if another process has stored it meanwhile,
    # because the processes would otherwise run different numbers of rounds.
    missing = sorted(set(context.cpu_group.everything(missing)))
    if context.is_main:
        pairs = sum(int((references.of_chunk(chunk) > 0).sum()) for chunk in missing)
        print_line(
            f"{key}: log-probabilities of the reference: "
            + (f"{many(pairs, 'pair')} to compute" if pairs else "all stored")
        )
    return missing


def _places(rows: Rows, context: RunContext) -> References:
    config, precision, image = context.config, context.precision, context.processor.image_processor
    facts = (
        identity_of(config.model), config.model.quantize, precision, config.deepspeed.stage > 0,
        image.image_mean, image.image_std, image.rescale_factor, in_float32(config, precision), package_versions(),
    )  # fmt: skip
    folder = config.cache_folder / "reference"
    make_folder(folder, "dpo.reference=adapter or model")
    chunks = Chunks(rows, folder, repr(facts))
    mine = range(context.rank, len(chunks), context.cpu_group.processes)
    found = []
    with counting("checking stored reference log-probabilities", len(mine), shown=context.is_main) as progress:
        for chunk, file in zip(mine, _loader(chunks, config.data.workers, mine), strict=True):
            found.append((chunk, file))
            progress(len(found))
    files = tuple(file for _, file in sorted(context.cpu_group.everything(found)))
    return References(rows.lengths.supervised, files)


def _fill(
    missing: list[int],
    rows: Rows,
    references: References,
    model: PreTrainedModel,
    context: RunContext,
    skipped: Skipped,
) -> None:
    config, cpu_group = context.config, context.cpu_group
    room = (config.pack_length or config.data.max_length or _ROOM) * config.train.batch_size
    mine = missing[context.rank :: cpu_group.processes]
    passes = [one for chunk in mine for one in passes_of(chunk, rows, room)]
    asked = iter(_loader(PassInputs(rows, passes), config.data.workers))
    of_chunk, half, done = Counter(one.chunk for one in passes), autocast_to(config, context.precision), 0
    with counting("log-probabilities of the reference, files", len(missing), shown=context.is_main) as progress:
        for turn in range(ceil(len(missing) / cpu_group.processes)):
            broken, failure = [], ""
            for chunk in mine[turn : turn + 1]:
                values: dict[int, torch.Tensor] = {}
                for one in islice(asked, of_chunk[chunk]):
                    broken += one.problems
                    values |= _values(one, model, half, references)
                try:
                    references.write(chunk, joined(chunk, values, references.counts))
                except OSError as error:
                    failure = f"{references.files[chunk].parent} cannot be written: {error.strerror or error}."
            skipped.record(broken)
            new, faults = cpu_group.sum(
                [len(mine[turn : turn + 1]), bool(failure) or (len(broken) if config.data.on_error == "raise" else 0)]
            )
            if faults:
                reasons = cpu_group.everything([failure, *(problem.reason for problem in broken)])
                raise UnusableRows(next(one for one in reasons if one))
            done += new
            progress(done)


@torch.no_grad()
def _values(
    asked: PassInput, model: PreTrainedModel, half: torch.dtype | None, references: References
) -> dict[int, torch.Tensor]:
    """Return the log-probabilities of each sample of a pass, [learned tokens of the sample], by the sample's index."""
    if asked.batch is None:
        return {}
    with autocast(model.device.type, half):
        log_probs = model(**send_to_device(asked.batch, model.device)).log_probs.float().cpu()
    parts = log_probs.split([int(references.counts[index]) for index in asked.samples])
    return dict(zip(asked.samples, parts, strict=True))


def _loader(dataset: Dataset, workers: int, order: Sequence[int] | None = None) -> DataLoader:
    return DataLoader(dataset, None, sampler=order, num_workers=workers, worker_init_fn=ignore_terminal_signals)
