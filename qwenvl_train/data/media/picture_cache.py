"""Resized pictures kept on disk as the patches they become, so that later epochs and runs read instead of decode."""

import hashlib
import os
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import PIL
import torch

from qwenvl_train.data.sample import Content
from qwenvl_train.errors import UserError

# Goes up when the same picture comes to other patches.
_RULE = 2
_CHANNELS = 3
_CHECK_BYTES = 4
_KEEP_FREE = 10 * 2**30


class PictureCache:
    """Several workers, runs and machines may share the folder: a file appears whole, and is checked when read.

    Nothing is compressed: a photo would only shrink by half, and take longer to unpack than to decode from JPEG.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._told = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"The picture cache {folder} cannot be made: {error.strerror}. Set data.cache to a folder that can "
                "be written, or data.cache_pictures=false."
            ) from None

    def patches(
        self, content: Content, resized: tuple[int, int], patch: int, merge: int, make: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """What `make` returns, [patches, patch * patch * channels] uint8, from disk where it was made before."""
        height, width = resized
        shape = (height * width // patch**2, _CHANNELS * patch**2)
        try:
            source = _identity(content)
        except OSError:
            return make()  # and let it say what is wrong with the file
        facts = (_RULE, PIL.__version__, torch.__version__, source, resized, patch, merge)
        name = hashlib.sha256(repr(facts).encode()).hexdigest()
        path = self._folder / name[:2] / name
        kept = _read(path, shape)
        if kept is not None:
            return kept
        made = make()
        self._store(path, made)
        return made

    def _store(self, path: Path, patches: np.ndarray) -> None:
        try:
            if shutil.disk_usage(self._folder).free < _KEEP_FREE + patches.nbytes:
                raise OSError(f"less than {_KEEP_FREE // 2**30} GiB are free, and checkpoints need room too")
            path.parent.mkdir(exist_ok=True)
            _write(path, patches)
        except OSError as error:
            if not self._told:
                warnings.warn(
                    f"The picture cache {self._folder} takes no more pictures: {error}. They are decoded each time.",
                    stacklevel=2,
                )
            self._told = True


def _identity(content: Content) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    facts = os.stat(content)
    return f"{os.path.abspath(content)} {facts.st_size} {facts.st_mtime_ns}"


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """None where the file is missing, or is not what was written."""
    try:
        stored = np.fromfile(path, dtype=np.uint8)
    except OSError:
        return None
    patches, check = stored[:-_CHECK_BYTES], stored[-_CHECK_BYTES:]
    if patches.size != shape[0] * shape[1] or check.tobytes() != _check(patches):
        return None
    return patches.reshape(shape)


def _write(path: Path, patches: np.ndarray) -> None:
    part = path.with_suffix(f".{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(patches.data)
            file.write(_check(patches))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _check(patches: np.ndarray) -> bytes:
    """Not a matter of trust in the disk: after a crash a file may have its length and not its content."""
    return zlib.crc32(patches.data).to_bytes(_CHECK_BYTES, "little")
