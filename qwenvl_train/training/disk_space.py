"""The disk space that checkpoints take, and whether it is free."""

import shutil
from math import ceil
from pathlib import Path
from typing import Any

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.errors import UserError
from qwenvl_train.training.optim import moment_bytes

_FILES = 16 * 2**20
"""Bytes of the files of a checkpoint that hold no weights, such as those of the tokenizer."""


class NoRoom(UserError):
    """Error that all processes raise at the same time."""


def checkpoint_bytes(components: list[dict[str, Any]], config: RunConfig, precision: str) -> int:
    """Return about how many bytes a checkpoint takes. `components` are the rows of the component table.

    A checkpoint with adapters holds only the trained weights, and any other holds all. Trained weights are in float32,
    except under DeepSpeed, which stores its float32 copies with its optimizer state.
    """
    trained, parameters = (sum(row[key] for row in components) for key in ("trained", "parameters"))
    adapters = any(row["mode"] == "lora" for row in components)
    frozen = 0 if adapters else max(0, parameters - trained)
    computed, moments = (4 if precision == "fp32" else 2), moment_bytes(config.optim)
    if config.deepspeed.stage == 0:
        return _FILES + trained * (4 + moments) + frozen * computed
    # DeepSpeed stores weights a second time, beside those that transformers loads. In stage 3, each process's share of
    # trained weights is only in float32.
    whole, of_deepspeed = int(config.deepspeed.saves_whole_weights), int(config.deepspeed.stage < 3)
    return _FILES + trained * ((whole + of_deepspeed) * computed + 4 + moments) + frozen * (whole + 1) * computed


def refuse_full_disk(folder: Path, each: int, config: RunConfig, steps_left: int, existing: int) -> None:
    """Raise UserError if the checkpoints of a run do not fit on the disk of its folder. `each` is the size of one, and
    `existing` is the number of those that are there."""
    train = config.train
    new = ceil(steps_left / train.save_steps) if train.save_steps else 1
    count = new
    if train.keep is not None:
        # A new checkpoint is complete before an old one is deleted.
        kept = train.keep + 1 - existing
        # With save_minutes, nobody knows yet how many there will be.
        count = max(1, kept if train.save_minutes else min(new, kept))
    needed, free = count * each, free_bytes(folder)
    if needed > free:
        raise UserError(
            f"output_dir: the checkpoints of this run need about {gib(needed)} in {folder} ({count} of {gib(each)}), "
            f"and {gib(free)} are free; free some space, lower train.keep, or choose another output_dir."
        )


def about_missing_space(checkpoints: list[Path], estimate: int, folder: Path) -> str | None:
    """Return a sentence if the next checkpoint does not fit on the disk, and None otherwise. The size of the newest
    checkpoint is taken instead of the estimate if there is one."""
    needed = size_of(checkpoints[-1]) if checkpoints else estimate
    free = free_bytes(folder)
    if needed <= free:
        return None
    last = f"its last checkpoint is {checkpoints[-1].name}" if checkpoints else "it has no checkpoint yet"
    return (
        f"There is no room for the next checkpoint: it needs about {gib(needed)} in {folder}, and {gib(free)} are "
        f"free. The run ends here, and {last}. Free some space, then start the same command with "
        f"run_name={folder.name}."
    )


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:,.0f} MiB"
