"""Computes and stores the outputs of the frozen vision tower for all pictures and clips, before a run with
train.cache_vision=true.

Each process checks its share of the samples, all processes exchange which features are not stored yet, and each then
computes its share of those. A start that is killed leaves complete files, and the next start computes only the missing
ones.
"""

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import ceil

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from qwenvl_train.data.batches.loader import Rows, ignore_terminal_signals
from qwenvl_train.data.cache_files import KEEP_FREE, make_folder
from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.data.media.feature_cache import FeatureCache, Tower
from qwenvl_train.data.precompute.missing_features import Decoded, MissingFeatureFiles, MissingFeatures, MissingMedia
from qwenvl_train.data.render.renderer import Renderer, frame_pairs_of
from qwenvl_train.errors import UserError
from qwenvl_train.model.tower import gathered
from qwenvl_train.model.vision_features import VisionFeatureExtractor
from qwenvl_train.reporting.bar import counting
from qwenvl_train.reporting.console import console_on, print_line
from qwenvl_train.reporting.wording import count, many
from qwenvl_train.run.context import RunContext
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.skipped import Skipped, UnusableRows

_ROUND = 16
"""Number of samples that each process computes before all processes exchange their progress."""
_PASS = 16384
"""Largest number of patches in one pass of the tower, unless a single picture or clip has more."""
_THREADS = 4
_TOLD_SECONDS = 60
GIB = 2**30


def store_features(rows: Sequence[Rows], model: PreTrainedModel, context: RunContext, skipped: Skipped) -> FeatureCache:
    """Return the cache with the features of all pictures and clips in `rows`. `model` is the base model. All processes
    must call this together. It returns when everything is stored."""
    config, processor = context.config, context.processor
    renderer = rows[0].renderer
    visual = model.get_submodule(context.family.vision_path)
    with gathered(visual, config.deepspeed.stage == 3):
        extractor = VisionFeatureExtractor(
            model, context.family, config, context.precision, processor.image_processor, context.device
        )
        shapes = torch.tensor([(1, renderer.pixels.merge, renderer.pixels.merge)])
        blank = extractor(renderer.blank_planes(), None, shapes, renderer.vision_index(shapes))
        tower = Tower(extractor.digest, len(blank), blank.shape[-1], blank.dtype)
        features = FeatureCache(config.cache_folder / "vision", tower)
        make_folder(features.folder, "train.cache_vision=false")
        missing = _missing(rows, features, context)
        _announce(missing, features, context)
        _fill(missing, rows, features, extractor, context, skipped)
    return features


def _missing(rows: Sequence[Rows], features: FeatureCache, context: RunContext) -> list[MissingFeatures]:
    """Return the pictures and clips whose features are not stored yet. Each process checks its share of the samples.
    The result is the same on all processes."""
    samples = [
        (which, index)
        for which, some in enumerate(rows)
        for index in np.flatnonzero((some.lengths.media > 0) & some.lengths.usable).tolist()
    ][context.rank :: context.processes]
    found: dict[str, tuple[int, int, int, int]] = {}
    with counting("checking samples for stored vision features", len(samples), shown=context.is_main) as progress:
        done = 0
        for lacking, checked in _loader(MissingFeatureFiles(rows, features, samples), context.config.data.workers):
            for which, index, at, file in lacking:
                found.setdefault(file.path.name, (which, index, at, file.patches))
            done += checked
            progress(done)
    # Two processes may have found the same picture.
    of_all = dict(sorted(context.cpu_group.everything(list(found.items())), reverse=True))
    samples_lacking: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for which, index, at, patches in sorted(of_all.values()):
        samples_lacking.setdefault((which, index), []).append((at, patches))
    return [
        MissingFeatures(*sample, tuple(at for at, _ in media), sum(patches for _, patches in media))
        for sample, media in samples_lacking.items()
    ]


def _announce(missing: list[MissingFeatures], features: FeatureCache, context: RunContext) -> None:
    """Print how much disk space the missing features take. Raise UserError if there is not enough."""
    media = sum(len(one.media) for one in missing)
    needed = features.bytes_of(sum(one.patches for one in missing))
    free = shutil.disk_usage(features.folder).free
    refusal = ""
    if media and free < needed + KEEP_FREE:
        refusal = (
            f"train.cache_vision=true needs {needed / GIB:.1f} GiB in {features.folder} for "
            f"{many(media, 'image or video', 'images and videos')}, but {free / GIB:.1f} GiB are free, of which "
            f"{KEEP_FREE // GIB} are kept for checkpoints; set data.cache to a folder on a larger disk, lower "
            "model.max_pixels, or set train.cache_vision=false."
        )
    if refusals := [reason for reason in context.cpu_group.everything([refusal]) if reason]:
        raise UserError(refusals[0])
    if context.is_main and media:
        size = f"{needed / GIB:.1f} GiB" if needed >= GIB else f"{needed / 2**20:.1f} MiB"
        print_line(f"vision features: {many(media, 'image or video', 'images and videos')} to compute, {size} on disk")
    elif context.is_main:
        print_line("vision features: all stored")


def _fill(
    missing: list[MissingFeatures],
    rows: Sequence[Rows],
    features: FeatureCache,
    extractor: VisionFeatureExtractor,
    context: RunContext,
    skipped: Skipped,
) -> None:
    config, cpu_group = context.config, context.cpu_group
    # The shares of the processes have similar numbers of patches. Each process reads its share in the order of files.
    costly_first = sorted(missing, key=lambda one: one.patches, reverse=True)
    mine = sorted(costly_first[context.rank :: context.processes], key=lambda one: (one.rows, one.index))
    media = sum(len(one.media) for one in missing)
    writer = _Writer(features, extractor, rows[0].renderer)
    decoded = iter(_loader(MissingMedia(rows, features, mine), config.data.workers))
    stored, last = 0, time.monotonic()
    with counting("vision features, images and videos", media, shown=context.is_main) as progress:
        for _ in range(ceil(len(missing) / cpu_group.processes / _ROUND)):
            done, broken, failure = _round(islice(decoded, _ROUND), writer)
            skipped.record(broken)
            new, faults = cpu_group.sum(
                [done, bool(failure) or (len(broken) if config.data.on_error == "raise" else 0)]
            )
            stored += new
            progress(stored)
            if faults:
                raise UnusableRows(*_first(cpu_group, [failure, *(problem.reason for problem in broken)]))
            if (
                context.is_main
                and time.monotonic() - last > _TOLD_SECONDS
                and not console_on(sys.stderr).is_interactive
            ):
                print_line(f"vision features: {count(stored)} of {many(media, 'image or video', 'images and videos')}")
                last = time.monotonic()


def _round(
    decoded: Iterator[tuple[list[Decoded], Problem | None, int]], writer: "_Writer"
) -> tuple[int, list[Problem], str]:
    """Return the number of media that were processed, the problems of samples that cannot be used, and the reason why
    nothing more can be stored (empty if there is none)."""
    done, broken = 0, []
    try:
        for some, problem, asked in decoded:
            writer.take(some)
            broken += [problem] if problem else []
            done += asked
        writer.finish()
    except OSError as error:
        return done, broken, f"{writer.features.folder} cannot be written: {error.strerror or error}."
    return done, broken, ""


class _Writer:
    """Collects media until they fill a pass of the tower, runs the pass, and stores its outputs in threads while later
    passes run."""

    def __init__(self, features: FeatureCache, extractor: VisionFeatureExtractor, renderer: Renderer):
        self.features, self._extractor, self._renderer = features, extractor, renderer
        self._waiting: list[Decoded] = []
        self._storing: list[Future[None]] = []
        self._threads = ThreadPoolExecutor(_THREADS)

    def take(self, decoded: list[Decoded]) -> None:
        for one in decoded:
            if sum(waiting.file.patches for waiting in self._waiting) + one.file.patches > _PASS:
                self._run_tower()
            self._waiting.append(one)

    def finish(self) -> None:
        self._run_tower()
        self._wait(0)

    def _run_tower(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        starts = np.cumsum([0, *(len(one.planes) for one in waiting)]).tolist()
        frame_pairs = np.concatenate(
            [frame_pairs_of(one.size, start) for one, start in zip(waiting, starts, strict=False)]
        )
        planes = np.concatenate([one.planes for one in waiting])
        grids = torch.tensor([one.size.grid for one in waiting])
        states = self._extractor(planes, frame_pairs, grids, self._renderer.vision_index(grids))
        for one, own in zip(waiting, states.split([one.file.patches for one in waiting], dim=1), strict=True):
            self._storing.append(self._threads.submit(self.features.write, one.file, own))
            self._wait(_THREADS)

    def _wait(self, left: int) -> None:
        while len(self._storing) > left:
            self._storing.pop(0).result()


def _loader(dataset: Dataset, workers: int) -> DataLoader:
    return DataLoader(dataset, None, num_workers=workers, worker_init_fn=ignore_terminal_signals)


def _first(cpu_group: CpuGroup, reasons: list[str]) -> list[str]:
    return [one for one in cpu_group.everything(reasons) if one][:1]
