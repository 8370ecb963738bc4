"""The cache returns exactly what would be computed, whatever happens to its files."""

import multiprocessing
import os
import shutil
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from qwenvl_train.data import cache_files
from qwenvl_train.data.media import picture_cache, pictures
from qwenvl_train.data.media.picture_cache import PictureCache
from qwenvl_train.data.media.pictures import PixelSettings, load_patches, measure
from qwenvl_train.data.sample import Image
from qwenvl_train.errors import UserError

SETTINGS = PixelSettings(patch=14, merge=2, min_pixels=56 * 56, max_pixels=112 * 112)
RESIZED = (56, 84)
PATCHES = np.random.default_rng(0).integers(0, 256, (24, 588), dtype=np.uint8)


@pytest.fixture(autouse=True)
def any_disk_will_do(monkeypatch):
    monkeypatch.setattr(picture_cache, "KEEP_FREE", 0)


@pytest.fixture
def cache(tmp_path) -> PictureCache:
    return PictureCache(tmp_path / "cache")


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").rglob("*") if path.is_file()]


class Maker:
    """Counts how often an image was computed."""

    def __init__(self, patches: np.ndarray = PATCHES):
        self.patches, self.made = patches, 0

    def __call__(self) -> np.ndarray:
        self.made += 1
        return self.patches


def photo(path: Path, seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (70, 120, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(path)
    return str(path)


def test_a_kept_picture_is_not_decoded_again(cache, tmp_path, monkeypatch):
    path = photo(tmp_path / "a.png", 1)
    images = [Image(path), Image(Path(path).read_bytes())]
    sizes = [measure(image, SETTINGS, "row 1") for image in images]
    expected = load_patches(images[0], sizes[0], SETTINGS, "row 1")
    first = [load_patches(image, size, SETTINGS, "row 1", cache) for image, size in zip(images, sizes, strict=True)]

    def refuse(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(pictures, "load_pixels", refuse)
    second = [load_patches(image, size, SETTINGS, "row 1", cache) for image, size in zip(images, sizes, strict=True)]
    for patches in first + second:
        assert patches.dtype == np.uint8
        assert np.array_equal(patches, expected)


def flip_one_bit(path: Path) -> None:
    stored = bytearray(path.read_bytes())
    stored[1000] ^= 1
    path.write_bytes(stored)


DAMAGES = {
    "short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "long": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "one_bit": flip_one_bit,
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew(damage, cache, tmp_path):
    maker = Maker()
    cache.patches(b"a", RESIZED, 14, 2, maker)
    (path,) = files(tmp_path)
    DAMAGES[damage](path)
    assert np.array_equal(cache.patches(b"a", RESIZED, 14, 2, maker), PATCHES)
    assert maker.made == 2
    assert np.array_equal(cache.patches(b"a", RESIZED, 14, 2, maker), PATCHES)
    assert maker.made == 2


def test_other_pictures_sizes_and_cuts_are_kept_apart(cache, tmp_path):
    path = photo(tmp_path / "a.png", 1)
    keys = [
        (path, (56, 84), 14, 2),
        (path, (84, 56), 14, 2),
        (path, (56, 84), 14, 1),
        (path, (56, 84), 28, 1),
        (photo(tmp_path / "b.png", 1), (56, 84), 14, 2),
        (b"a", (56, 84), 14, 2),
        (b"b", (56, 84), 14, 2),
    ]
    rng = np.random.default_rng(2)
    makers = [Maker(rng.integers(0, 256, (56 * 84 // p**2, 3 * p**2), dtype=np.uint8)) for _, _, p, _ in keys]
    for _ in range(2):
        for key, maker in zip(keys, makers, strict=True):
            assert np.array_equal(cache.patches(*key, maker), maker.patches)
    assert [maker.made for maker in makers] == [1] * len(keys)


def test_a_changed_file_is_made_anew(cache, tmp_path):
    path = photo(tmp_path / "a.png", 1)
    os.utime(path, ns=(0, 0))
    before, after = Maker(), Maker(PATCHES[::-1].copy())
    cache.patches(path, RESIZED, 14, 2, before)
    os.utime(path, ns=(0, 1))
    assert np.array_equal(cache.patches(path, RESIZED, 14, 2, after), after.patches)


def test_a_relative_path_is_the_file_it_names_now(cache, tmp_path, monkeypatch):
    makers = [Maker(), Maker(PATCHES[::-1].copy())]
    for folder, maker in zip(("one", "two"), makers, strict=True):
        (tmp_path / folder).mkdir()
        os.utime(photo(tmp_path / folder / "a.png", 1), ns=(0, 0))
        monkeypatch.chdir(tmp_path / folder)
        assert np.array_equal(cache.patches("a.png", RESIZED, 14, 2, maker), maker.patches)


def test_what_is_wrong_with_a_file_is_told_as_without_a_cache(cache, tmp_path):
    path = photo(tmp_path / "a.png", 1)
    size = measure(Image(path), SETTINGS, "row 1")
    Path(path).unlink()
    with pytest.raises(UserError, match=r"row 1: the image .*a\.png does not exist"):
        load_patches(Image(path), size, SETTINGS, "row 1", cache)
    assert not files(tmp_path)


def _ask_often(folder: Path, seed: int) -> int:
    cache = PictureCache(folder)
    wrong = 0
    for index in np.random.default_rng(seed).permutation(np.arange(20).repeat(5)):
        expected = PATCHES ^ np.uint8(index)
        wrong += not np.array_equal(cache.patches(bytes([index]), RESIZED, 14, 2, Maker(expected)), expected)
    return wrong


def test_processes_share_a_folder(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        wrong = pool.starmap(_ask_often, [(tmp_path / "cache", seed) for seed in range(4)])
    assert wrong == [0] * 4
    assert len(files(tmp_path)) == 20


def test_an_interrupted_write_leaves_nothing(cache, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_files, "_check", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.patches(b"a", RESIZED, 14, 2, Maker())
    assert not files(tmp_path)


def test_a_nearly_full_disk_stays_as_it_is(cache, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(picture_cache, "KEEP_FREE", 10 * 2**30)
    maker = Maker()
    with pytest.warns(UserWarning, match=r"cannot be written: less than 10 GiB are free"):
        assert np.array_equal(cache.patches(b"a", RESIZED, 14, 2, maker), PATCHES)
    with warnings.catch_warnings():
        # The warning is given once.
        warnings.simplefilter("error")
        assert np.array_equal(cache.patches(b"a", RESIZED, 14, 2, maker), PATCHES)
    assert maker.made == 2
    assert not files(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"The cache .*file/cache cannot be created: Not a directory\. Set data\."):
        PictureCache(tmp_path / "file" / "cache")
