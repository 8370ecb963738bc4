"""Keep resized pictures on disk as patches, so that later epochs and runs read the patches instead of decoding."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch

from qwenvl_train.data.cache_files import KEEP_FREE, identity, make_folder, path_in, read, write
from qwenvl_train.data.sample import Content

# Must be increased when the same picture yields other patches than before.
_RULE = 2
_CHANNELS = 3


class PictureCache:
    """A cache of the patches of pictures. The patches are not compressed: those of a photo would shrink only by half,
    and unpacking them would take longer than decoding the JPEG."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._warned = False
        make_folder(folder, "data.cache_pictures=false")

    def patches(
        self, content: Content, resized: tuple[int, int], patch: int, merge: int, make: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """Return what `make` returns, [patches, patch * patch * channels] uint8. It is read from disk when it was made
        before."""
        height, width = resized
        shape = (height * width // patch**2, _CHANNELS * patch**2)
        try:
            source = identity(content)
        except OSError:
            return make()  # which raises an error that says what is wrong with the file
        facts = (_RULE, PIL.__version__, torch.__version__, source, resized, patch, merge)
        path = path_in(self._folder, facts)
        cached = read(path, shape[0] * shape[1])
        if cached is not None:
            return cached.reshape(shape)
        patches = make()
        self._store(path, patches)
        return patches

    def _store(self, path: Path, patches: np.ndarray) -> None:
        try:
            if shutil.disk_usage(self._folder).free < KEEP_FREE + patches.nbytes:
                raise OSError(f"less than {KEEP_FREE // 2**30} GiB are free, and checkpoints need space too")
            write(path, patches)
        except OSError as error:
            if not self._warned:
                warnings.warn(
                    f"The image cache {self._folder} cannot be written: {error}. Images are decoded each time.",
                    stacklevel=2,
                )
            self._warned = True
