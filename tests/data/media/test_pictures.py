"""Unusual images: their size in the header equals their decoded size, and their pixels equal the processor's."""

import io
import os
import struct
import sys
import zlib

import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps
from qwen_vl_utils import fetch_image, smart_resize

from qwenvl_train.data.media.pictures import PixelSettings, load_patches, load_pixels, measure
from qwenvl_train.data.sample import Image, Limits
from qwenvl_train.errors import UserError
from qwenvl_train.families.tiny import build_processor
from qwenvl_train.model.pixels import Pixels

RNG = np.random.default_rng(1)
NOISE = RNG.integers(0, 256, (70, 120, 4), dtype=np.uint8)
PHOTO = Pillow.fromarray(NOISE[..., :3])
SEEN_THROUGH = Pillow.fromarray(NOISE)
PALETTE = PHOTO.convert("P", palette=Pillow.Palette.ADAPTIVE)
DEEP = RNG.integers(0, 2**16, (70, 120), dtype=np.uint16)
SETTINGS = PixelSettings(patch=14, merge=2, min_pixels=56 * 56, max_pixels=112 * 112)


def turned(orientation: int) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return exif


def encoded(picture: Pillow.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def moving(format: str, **options) -> bytes:
    return encoded(PHOTO, format, save_all=True, append_images=[PHOTO.rotate(180)], **options)


def png(pixels: np.ndarray, colour_type: int, claimed: tuple[int, int] | None = None) -> bytes:
    """Return a PNG with 16 bits per value, which Pillow writes only for grey images."""
    height, width = claimed or pixels.shape[:2]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


CASES = {
    "jpeg": encoded(PHOTO, "JPEG"),
    "jpeg_progressive": encoded(PHOTO, "JPEG", progressive=True, quality=95),
    "jpeg_every_colour": encoded(PHOTO, "JPEG", subsampling=0),
    "jpeg_grey": encoded(PHOTO.convert("L"), "JPEG"),
    "jpeg_cmyk": encoded(PHOTO.convert("CMYK"), "JPEG"),
    **{f"jpeg_turned_{o}": encoded(PHOTO, "JPEG", exif=turned(o)) for o in (*range(1, 9), 77)},
    "jpeg_turned_by_xmp": encoded(PHOTO, "JPEG", xmp=b'<x:xmpmeta tiff:Orientation="8"/>'),
    "phone": moving("MPO", exif=turned(6).tobytes()),
    "png": encoded(PHOTO, "PNG"),
    "png_turned": encoded(PHOTO, "PNG", exif=turned(6)),
    "png_1_bit": encoded(PHOTO.convert("1"), "PNG"),
    "png_grey": encoded(PHOTO.convert("L"), "PNG"),
    "png_palette": encoded(PALETTE, "PNG"),
    "png_palette_one_clear": encoded(PALETTE, "PNG", transparency=3),
    "png_palette_alpha": encoded(PALETTE, "PNG", transparency=bytes(range(256))),
    "png_alpha": encoded(SEEN_THROUGH, "PNG"),
    "png_grey_alpha": encoded(SEEN_THROUGH.convert("LA"), "PNG"),
    "png_grey_one_clear": encoded(PHOTO.convert("L"), "PNG", transparency=77),
    "png_one_clear": encoded(PHOTO, "PNG", transparency=tuple(NOISE[3, 3, :3].tolist())),
    "png_16_bits": png(RNG.integers(0, 2**16, (70, 120, 3)), colour_type=2),
    "png_16_bits_alpha": png(RNG.integers(0, 2**16, (70, 120, 4)), colour_type=6),
    "png_moving": moving("PNG"),
    "png_moving_second_first": moving("PNG", default_image=True),
    "gif": encoded(PALETTE, "GIF"),
    "gif_moving": moving("GIF"),
    "webp": encoded(PHOTO, "WEBP"),
    "webp_turned": encoded(PHOTO, "WEBP", exif=turned(5)),
    "webp_alpha": encoded(SEEN_THROUGH, "WEBP", lossless=True),
    "webp_moving": moving("WEBP"),
    "tiff": encoded(PHOTO, "TIFF"),
    "tiff_turned": encoded(PHOTO, "TIFF", exif=turned(6)),
    "tiff_lzw_turned": encoded(PHOTO, "TIFF", compression="tiff_lzw", exif=turned(8)),
    "tiff_cmyk": encoded(PHOTO.convert("CMYK"), "TIFF"),
    "bmp": encoded(PHOTO, "BMP"),
    "dot": encoded(PHOTO.resize((1, 1)), "PNG"),
    "line": encoded(PHOTO.resize((1, 150)), "PNG"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_pictures_of_every_kind_equal_the_processor(name, family):
    processor = build_processor(family).image_processor
    settings = PixelSettings.of(processor)
    upright = ImageOps.exif_transpose(Pillow.open(io.BytesIO(CASES[name])))
    expected = processor(upright, return_tensors="pt")
    image = Image(CASES[name])
    size = measure(image, settings, "row 1")
    patches = torch.from_numpy(load_patches(image, size, settings, "row 1"))
    assert size.original == (upright.height, upright.width)
    assert list(size.grid) == expected["image_grid_thw"][0].tolist()
    assert size.tokens == size.grid[1] * size.grid[2] // 4
    assert torch.equal(Pixels(processor)(patches), expected["pixel_values"])


@pytest.mark.parametrize("longest", [28 * 28 * 1280, 16384 * 28 * 28])
def test_a_photo_of_common_size_equals_the_processor(longest):
    """With these sizes, resizing takes its fast paths. One image shrinks, and one nearly keeps its size."""
    processor = build_processor("qwen2_5_vl").image_processor
    processor.size = {"shortest_edge": 56 * 56, "longest_edge": longest}
    smooth = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    photo = encoded(Pillow.fromarray(smooth).resize((1280, 960), Pillow.Resampling.BICUBIC), "JPEG")
    expected = processor(Pillow.open(io.BytesIO(photo)), return_tensors="pt")
    settings = PixelSettings.of(processor)
    size = measure(Image(photo), settings, "row 1")
    patches = torch.from_numpy(load_patches(Image(photo), size, settings, "row 1"))
    assert torch.equal(Pixels(processor)(patches), expected["pixel_values"])


@pytest.mark.parametrize(
    ("format", "deep", "options"),
    [
        ("PNG", DEEP, {}),
        ("PNG", DEEP, {"exif": turned(3)}),
        ("TIFF", DEEP, {}),
        ("TIFF", DEEP.astype(">u2"), {}),
    ],
    ids=["png", "png_turned", "tiff", "tiff_big_endian"],
)
def test_16_bit_grey_is_scaled_where_pillow_would_clip_it_to_white(format, deep, options):
    grey = Pillow.fromarray(deep)
    assert np.mean(grey.convert("RGB")) > 250
    shallow = Pillow.fromarray(np.rint(DEEP * (255 / 65535)).astype(np.uint8))
    images = [Image(encoded(picture, format, **options)) for picture in (grey, shallow)]
    size = measure(images[0], SETTINGS, "row 1")
    assert np.array_equal(*(load_pixels(image, size, "row 1") for image in images))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_read_upright(orientation, monkeypatch):
    monkeypatch.setattr(Pillow, "OPEN", dict(Pillow.OPEN))
    monkeypatch.setattr(Pillow, "ID", list(Pillow.ID))
    file = io.BytesIO()
    pillow_heif.from_pillow(PHOTO).save(file, quality=-1, exif=turned(orientation).tobytes())
    as_png = encoded(ImageOps.exif_transpose(pillow_heif.open_heif(file).to_pillow()), "PNG")
    assert Pillow.open(io.BytesIO(as_png)).size == ((120, 70) if orientation < 5 else (70, 120))
    sizes = [measure(Image(content), SETTINGS, "row 1") for content in (file.getvalue(), as_png)]
    pixels = [load_pixels(Image(content), sizes[0], "row 1") for content in (file.getvalue(), as_png)]
    assert sizes[0] == sizes[1]
    assert np.array_equal(*pixels)
    with pytest.raises(UserError, match=r"row 1: the image of .* bytes in the row is not an image .* or it is damaged"):
        measure(Image(file.getvalue()[:300]), SETTINGS, "row 1")


def test_heic_without_its_package_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Pillow, "ID", [name for name in Pillow.ID if name != "HEIF"])
    with pytest.raises(
        UserError, match=r"needs pillow-heif: pip install 'qwenvl-train\[heic\]', or convert it to JPEG"
    ):
        measure(Image(HEIC), SETTINGS, "row 1")


def test_a_path_is_read_like_its_bytes(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(CASES["jpeg_turned_6"])
    sizes = [measure(Image(content), SETTINGS, "row 1") for content in (str(path), CASES["jpeg_turned_6"])]
    patches = [load_patches(Image(content), sizes[0], SETTINGS, "row 1") for content in (str(path), path.read_bytes())]
    assert sizes[0] == sizes[1]
    assert np.array_equal(*patches)


def test_measuring_decodes_nothing(monkeypatch):
    def refuse(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    for name in ("jpeg_turned_6", "png", "png_turned", "gif_moving", "tiff_turned", "phone"):
        measure(Image(CASES[name]), SETTINGS, "row 1")


@pytest.mark.parametrize(
    "limits",
    [
        {"min_pixels": 56 * 56, "max_pixels": 100 * 100},
        {"min_pixels": 300 * 300, "max_pixels": 400 * 400},
        {"resized_height": 100, "resized_width": 300},
        {"resized_height": 98, "resized_width": 70},
        {"resized_height": 700, "resized_width": 1400},
    ],
    ids=str,
)
@pytest.mark.parametrize("patch", [14, 16])
def test_limits_of_a_row_mean_what_they_mean_to_qwen_vl_utils(limits, patch):
    settings = PixelSettings(patch, 2, min_pixels=56 * 56, max_pixels=112 * 112)
    expected = fetch_image({"image": PHOTO, **limits}, image_patch_size=patch)
    size = measure(Image(CASES["png"], Limits(**limits)), settings, "row 1")
    assert size.resized == (expected.height, expected.width)
    assert load_pixels(Image(CASES["png"]), size, "row 1").shape == (*size.resized, 3)


@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("original", [(70, 120), (31, 40), (600, 800), (50, 900)], ids=str)
def test_a_limit_below_the_checkpoint_s_least_means_what_it_means_to_qwen_vl_utils(original, patch):
    factor = 2 * patch
    settings = PixelSettings(patch, 2, min_pixels=64 * factor**2, max_pixels=256 * factor**2)
    picture = encoded(Pillow.new("RGB", original[::-1]), "PNG")
    for tokens in (4, 5, 17.5, 63.9):
        most = int(tokens * factor**2)
        resized = measure(Image(picture, Limits(max_pixels=most)), settings, "row 1").resized
        # The short side of a thin picture, which qwen-vl-utils rounds down to 0, has one token here.
        assert resized == tuple(max(factor, side) for side in smart_resize(*original, factor, max_pixels=most))
    # A limit above the checkpoint's least leaves that in force.
    small = measure(Image(picture, Limits(max_pixels=100 * factor**2)), settings, "row 1").resized
    assert small == smart_resize(*original, factor, settings.min_pixels, 100 * factor**2)


@pytest.mark.parametrize(
    ("most", "limits", "low"),
    [
        (28 * 28 * 16384, Limits(), 512 * 512),
        (28 * 28 * 16384, Limits(max_pixels=300_000), 512 * 512),
        (28 * 28 * 16384, Limits(max_pixels=100_000), 100_000),
        (28 * 28 * 100, Limits(), 28 * 28 * 100),
    ],
    ids=str,
)
def test_low_detail_is_one_more_limit(most, limits, low):
    settings = PixelSettings(14, 2, min_pixels=56 * 56, max_pixels=most)
    picture = encoded(Pillow.new("RGB", (1600, 1200)), "PNG")

    def resized(limits: Limits, detail: str | None) -> tuple[int, int]:
        return measure(Image(picture, limits, detail), settings, "row 1").resized

    assert resized(limits, "low") == resized(Limits(max_pixels=low), None)
    assert resized(limits, "high") == resized(limits, "auto") == resized(limits, None)


@pytest.mark.parametrize(
    ("limits", "resized"),
    [
        (Limits(resized_height=10, resized_width=30), (28, 28)),
        (Limits(resized_height=10, resized_width=300), (28, 308)),
        (Limits(resized_height=560, resized_width=560), (560, 560)),
    ],
    ids=["below_the_model's_limits", "thin", "above_the_model's_limits"],
)
def test_a_size_asked_for_is_not_brought_within_the_models_limits(limits, resized):
    assert measure(Image(CASES["png"], limits), SETTINGS, "row 1").resized == resized


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            Limits(max_pixels=3000),
            "has max_pixels 3000, but an image has 3136 pixels or more, which are 4 tokens; raise max_pixels",
        ),
        (Limits(min_pixels=20000), "has min_pixels 20000 above max_pixels 12544"),
        (Limits(resized_height=28, resized_width=9000), "would be 8988×28 pixels; one side may be at most 200 times"),
    ],
    ids=str,
)
def test_limits_that_contradict_are_refused(limits, message):
    with pytest.raises(UserError, match=rf"row 1: the image of \d+ bytes in the row {message}"):
        measure(Image(CASES["png"], limits), SETTINGS, "row 1")


def no_file(path):
    pass


def link_to_itself(path):
    path.symlink_to(path)


def folder(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def content(data: bytes):
    return lambda path: path.write_bytes(data)


HEIC = b"\0\0\0\x18ftypheic" + bytes(100)
NOT_READ = "is not an image in a supported format"
BAD_FILES = {
    "missing": (no_file, r"does not exist\."),
    "link_to_itself": (link_to_itself, "cannot be read: Too many levels of symbolic links"),
    "folder": (folder, "is a folder; give the path of a file"),
    "pipe": (pipe, "is not a regular file"),
    "empty": (content(b""), "is an empty file"),
    "web_page": (content(b"<html>404 Not Found</html>"), NOT_READ),
    "heic": (content(HEIC), NOT_READ),
    "head_only": (content(CASES["png"][:20]), "cannot be opened: Truncated File Read"),
    "too_long": (content(encoded(PHOTO.resize((1, 10000)), "PNG")), "is 1×10000 pixels; one side may be at most 200"),
    "bomb": (content(png(DEEP, 0, claimed=(100_000, 100_000))), "has more than 89478485 pixels, like a decompression"),
    "small_bomb": (
        content(png(DEEP, 0, claimed=(9_460, 9_460))),
        "has more than 89478485 pixels, like a decompression",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_told_before_it_is_decoded(case, tmp_path):
    make, message = BAD_FILES[case]
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(UserError, match=rf"^row 1: the image .*bad\.png {message}"):
        measure(Image(str(path)), SETTINGS, "row 1")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (CASES["jpeg"][: len(CASES["jpeg"]) // 2], "cannot be decoded: .*truncated"),
        (CASES["png"][: len(CASES["png"]) // 2], "cannot be decoded: .*truncated"),
        (CASES["gif"][: len(CASES["gif"]) // 2], "cannot be decoded: .*truncated"),
        (CASES["webp"][: len(CASES["webp"]) // 2], "cannot be"),
        (CASES["bmp"][: len(CASES["bmp"]) // 2], "cannot be decoded: .*truncated"),
        (CASES["png"].replace(CASES["png"][1000:1100], bytes(100)), "cannot be decoded"),
        (
            encoded(Pillow.fromarray(DEEP.astype(np.float32)), "TIFF"),
            "cannot be decoded: its 32-bit values do not define",
        ),
        (
            encoded(Pillow.fromarray(DEEP.astype(np.int32)), "TIFF"),
            "cannot be decoded: its 32-bit values do not define",
        ),
    ],
    ids=["jpeg", "png", "gif", "webp", "bmp", "png_damaged", "float", "32_bits"],
)
def test_a_file_broken_behind_its_header_is_told_when_decoded(data, message, tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"^row 1: the image .*bad\.png {message}"):
        load_pixels(Image(str(path)), measure(Image(str(path)), SETTINGS, "row 1"), "row 1")


def test_a_name_of_any_length_fits_into_the_message():
    with pytest.raises(UserError, match="cannot be read: File name too long") as raised:
        measure(Image("iVBORw0KGgo" * 1000), SETTINGS, "row 1")
    assert len(str(raised.value)) < 500
