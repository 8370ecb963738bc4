"""The MIME type of bytes is that of the file."""

import io

import pytest
from PIL import Image

from qwenvl_train.data.media.inline import data_address, media_type
from qwenvl_train.data.media.locate import Locator
from tests.videos import write_video


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_images_have_the_type_that_pillow_gives(format, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format)
    assert media_type(file.getvalue()) == Image.MIME[format]
    address = data_address(file.getvalue())
    located = Locator(tmp_path, fenced=False, allow_remote=False, cache=tmp_path).locate(address, "here")
    assert located == file.getvalue()


@pytest.mark.parametrize(
    ("name", "type"), [("a.mp4", "video/mp4"), ("a.webm", "video/webm"), ("a.avi", "video/x-msvideo")]
)
def test_clips_have_the_type_of_their_container(name, type, tmp_path):
    codec = {"codec": "libvpx-vp9"} if name == "a.webm" else {}
    write_video(tmp_path / name, frames=2, **codec)
    assert media_type((tmp_path / name).read_bytes()) == type


def test_other_bytes_have_none():
    assert data_address(b"?") == "data:;base64,Pw=="
