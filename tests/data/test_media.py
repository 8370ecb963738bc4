"""Odd pictures: measured from the header as they decode, and equal to what the processor makes of them."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import AutoProcessor

from qwenvl_train.data.media import PixelSettings, load_patches, measure
from qwenvl_train.errors import UserError
from qwenvl_train.model.forward import Pixels

RNG = np.random.default_rng(1)
PHOTO = Image.fromarray(RNG.integers(0, 256, (70, 120, 3), dtype=np.uint8))


def turned(path, suffix: str) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6
    PHOTO.save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    return ImageOps.exif_transpose(Image.open(path))


def saved(path, picture: Image.Image) -> Image.Image:
    picture.save(path)
    return Image.open(path)


CASES = {
    "jpeg.jpg": lambda path: saved(path, PHOTO),
    "turned.jpg": lambda path: turned(path, "jpg"),
    "turned.png": lambda path: turned(path, "png"),
    "grey.png": lambda path: saved(path, PHOTO.convert("L")),
    "palette.gif": lambda path: saved(path, PHOTO.convert("P")),
    "alpha.png": lambda path: saved(path, PHOTO.convert("RGBA")),
    "cmyk.jpg": lambda path: saved(path, PHOTO.convert("CMYK")),
    "bits.png": lambda path: saved(path, PHOTO.convert("1")),
    "webp.webp": lambda path: saved(path, PHOTO),
    "tiff.tiff": lambda path: saved(path, PHOTO),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_pictures_of_every_mode_equal_the_processor(name, family, checkpoints, tmp_path):
    processor = AutoProcessor.from_pretrained(checkpoints[family]).image_processor
    settings = PixelSettings.of(processor)
    path = tmp_path / name
    expected = processor(CASES[name](path), return_tensors="pt")
    size = measure(str(path), settings, "row 1")
    patches = torch.from_numpy(load_patches(str(path), size, settings, "row 1"))
    assert list(size.grid) == expected["image_grid_thw"][0].tolist()
    assert size.tokens == size.grid[1] * size.grid[2] // 4
    assert torch.equal(Pixels(processor)(patches), expected["pixel_values"])


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "big.png"
    PHOTO.save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"row 1: the picture .*big\.png does not open: .*bomb"):
        measure(str(path), PixelSettings(14, 2, 3136, 12544), "row 1")
