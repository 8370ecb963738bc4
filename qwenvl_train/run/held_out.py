"""The held-out samples of a run: chosen from data.train by a share, or compared with it."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.cache_files import path_in, replacing_index
from qwenvl_train.data.held_out.contents import MediaFiles
from qwenvl_train.data.held_out.overlap import Overlap, overlap
from qwenvl_train.data.held_out.split import groups_of, held_out
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.bar import counting
from qwenvl_train.reporting.wording import count, many
from qwenvl_train.run.rows import first_then_others
from qwenvl_train.training.distributed.store import agree

_VERSION = 2
"""Version of the stored results. It changes when the same samples would give another result."""


def split(config: RunConfig, rows: Rows, state: PartialState) -> tuple[Rows, Rows]:
    """Return the samples that are trained on and those that data.eval=5% holds out. They are the same on every
    process, and in every run with the same data, share and seed."""
    trained, evaluated = first_then_others(state, lambda: split_alone(config, rows, state.is_main_process))
    if agree(state, evaluated.samples.choice()) != evaluated.samples.choice():
        raise UserError(
            f"data.eval={config.data.eval}: the processes chose different samples; all of them must read the same "
            f"data and share the folder data.cache ({config.cache_folder})."
        )
    return trained, evaluated


def split_alone(config: RunConfig, rows: Rows, shown: bool = True) -> tuple[Rows, Rows]:
    """Return the same as `split`, in one process. `shown` says whether a terminal shows the progress."""
    assert config.data.eval_share is not None
    usable = np.flatnonzero(rows.lengths.usable)
    facts = (_VERSION, "split", rows.samples.fingerprint(), _digest(usable), config.data.eval, config.seed)
    file = path_in(config.cache_folder / "held_out", facts)
    if not (chosen := _stored(file)):
        with counting(f"choosing data.eval={config.data.eval}", len(usable), shown) as progress:
            media = MediaFiles()
            contents = media.contents_of(rows.samples, usable.tolist(), progress)
            groups = groups_of(contents, media.equal_to(media.numbers()))
        chosen = usable[held_out(groups, config.data.eval_share, config.seed)].tolist()
        if not chosen:
            raise UserError(f"data.eval={config.data.eval} holds out none of {_why_none(groups)}")
        _store(file, chosen)
    evaluated = np.array(chosen, dtype=np.int64)
    _refuse_nothing_left(config, rows, evaluated)
    return rows.part(np.setdiff1d(np.arange(len(rows.samples)), evaluated)), rows.part(evaluated)


def _why_none(groups: np.ndarray) -> str:
    """Return how many samples there are, why none is held out, and what helps."""
    _, sizes = np.unique(groups, return_counts=True)
    samples, smallest = many(len(groups), "sample"), int(sizes.min(initial=len(groups)))
    together = "share images or videos, so that they must stay together"
    if len(sizes) <= 1:
        why = f": all of them {together}" if len(groups) > 1 else ""
        return f"{samples}{why}; name a file of held-out samples, such as data.eval=held_out.jsonl."
    why = f": the smallest group of those that {together}, has {count(smallest)}" if smallest > 1 else ""
    least = 100 * smallest / (2 * len(groups))
    return f"{samples}{why}; raise the share above {least:.3g}%, or name a file of held-out samples."


def _refuse_nothing_left(config: RunConfig, rows: Rows, evaluated: np.ndarray) -> None:
    usable = rows.lengths.usable.copy()
    usable[evaluated] = False
    for entry in rows.samples.entries:
        if not usable[entry.start : entry.stop].any() and rows.lengths.usable[entry.start : entry.stop].any():
            raise UserError(
                f"data.eval={config.data.eval} leaves no sample of {entry.config.path} to train on (those that "
                "share an image or video stay together); lower the share, or name a file of held-out samples."
            )


def split_in_words(config: RunConfig, evaluated: Rows) -> str:
    return (
        f"data.eval={config.data.eval} holds out {many(len(evaluated.samples), 'sample')} of these rows; no image, "
        "video or text-only sample is on both sides"
    )


def overlap_in_words(config: RunConfig, train: Rows, evaluated: Rows) -> str:
    """Return a line that counts what is trained on and held out alike. It is empty if there is nothing."""
    found = _overlap(config, train, evaluated)
    parts = []
    if found.samples:
        parts.append(f"{found.samples:,} of the {many(found.of_samples, 'held-out sample')}")
    if found.media:
        parts.append(f"{found.media:,} of the {found.of_media:,} images and videos in data.eval")
    if not parts:
        return ""
    return f"{' and '.join(parts)} are also in data.train, so the held-out score may be better than on new data"


def _overlap(config: RunConfig, train: Rows, evaluated: Rows) -> Overlap:
    sides = train, evaluated
    usable = [np.flatnonzero(rows.lengths.usable) for rows in sides]
    marks = [(rows.samples.fingerprint(), _digest(indices)) for rows, indices in zip(sides, usable, strict=True)]
    file = path_in(config.cache_folder / "held_out", (_VERSION, "overlap", *marks))
    if (stored := _stored(file)) is not None:
        return Overlap(**stored)
    media = MediaFiles()
    with counting("comparing data.eval with data.train", sum(map(len, usable))) as progress:
        read = media.contents_of(evaluated.samples, usable[1].tolist(), progress)
        wanted = media.numbers()
        trained = media.contents_of(train.samples, usable[0].tolist(), lambda done: progress(len(read) + done))
    found = overlap(trained, read, media.equal_to(wanted))
    _store(file, asdict(found))
    return found


def _digest(indices: np.ndarray) -> str:
    return hashlib.sha256(indices.tobytes()).hexdigest()


def _stored(file: Path) -> Any:
    """Return the stored result, or None if there is none that can be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _store(file: Path, result: object) -> None:
    with replacing_index(file) as written:
        written.write(json.dumps(result).encode())
