"""Images and videos that would fill the memory, never end or run a program are refused."""

import io
import struct

import av
import numpy as np
import pytest
from PIL import Image as Pillow

from qwenvl_train.data.media import video_files
from qwenvl_train.data.media.picture_files import load_picture
from qwenvl_train.data.media.pictures import PixelSettings, measure
from qwenvl_train.data.media.video_files import read_frames, video_facts
from qwenvl_train.data.media.video_limits import frame_size
from qwenvl_train.data.media.video_settings import ClipSettings
from qwenvl_train.data.sample import Image, Limits, Video
from qwenvl_train.errors import UserError

SETTINGS = PixelSettings(patch=14, merge=2, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(x) (w) file closefile showpage\n%%EOF\n"


def picture(width: int, height: int, **options) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("L", (width, height)).save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def test_a_program_is_no_picture(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("started"))
    for look in (lambda image: measure(image, SETTINGS, "here"), lambda image: load_picture(image, "here")):
        with pytest.raises(UserError, match=r"here: the image of .* is in EPS format, which is a program"):
            look(Image(EPS))


def test_a_line_is_no_picture():
    with pytest.raises(UserError, match="is 1×100000 pixels; one side may be at most 200 times the other"):
        measure(Image(picture(1, 100_000)), SETTINGS, "here")


@pytest.mark.parametrize(
    "limits", [Limits(resized_height=10**6, resized_width=10**6), Limits(min_pixels=10**12, max_pixels=10**13)]
)
def test_a_row_does_not_ask_for_a_size_that_fills_the_memory(limits):
    with pytest.raises(UserError, match=r"would be resized to .* pixels, more than 89478485; lower resized_height"):
        measure(Image(picture(100, 100), limits), SETTINGS, "here")


def test_only_one_frame_of_an_endless_animation_is_decoded():
    frames = [Pillow.new("L", (64, 64), shade) for shade in range(200)]
    content = picture(64, 64, format="GIF", save_all=True, append_images=frames)
    assert load_picture(Image(content), "here").getpixel((0, 0)) == (0, 0, 0)


def video(*sizes: tuple[int, int], format: str = "h264", frames: int = 3) -> bytes:
    """Videos of these widths and heights, one after another in one file."""
    files = []
    for width, height in sizes:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=format) as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for _ in range(frames):
                picture = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        files.append(buffer.getvalue())
    return b"".join(files)


def test_frames_that_grow_midway_are_not_decoded(monkeypatch):
    content = video((64, 64), (1024, 1024))
    assert video_facts(content, "clip").size == (64, 64)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 256 * 256)
    with pytest.raises(UserError, match="clip cannot be decoded"):
        list(read_frames(content, range(6), "clip"))


def test_a_table_of_frames_that_the_file_cannot_hold():
    content = bytearray(video((64, 64), format="mp4"))
    for box, at, number in (("stsz", 8, 1), ("stsz", 12, 200_000), ("stsc", 16, 200_000), ("stts", 12, 200_000)):
        place = content.index(box.encode()) + at
        content[place : place + 4] = struct.pack(">I", number)
    with pytest.raises(UserError, match="clip is truncated or damaged"):
        video_facts(bytes(content), "clip")


@pytest.mark.parametrize("format", ["mp4", "matroska", "mpegts"])
def test_a_video_without_end(format, monkeypatch):
    monkeypatch.setattr(video_files, "_MOST_FRAMES", 5)
    assert video_facts(video((64, 64), format=format, frames=5), "clip").frames == 5
    with pytest.raises(UserError, match="clip has more than 5 frames"):
        video_facts(video((64, 64), format=format, frames=6), "clip")


@pytest.mark.parametrize(
    ("limits", "frames", "words"),
    [
        (Limits(resized_height=10**6, resized_width=10**6), 2, "would be resized to"),
        (Limits(resized_height=2800, resized_width=2800), 768, "would be 768 frames of 2800×2800 pixels, together"),
    ],
)
def test_a_row_does_not_ask_for_a_clip_that_fills_the_memory(limits, frames, words):
    settings = ClipSettings(14, 2, 2, 2.0, 4, 768, 1, 28 * 28 * 768, None, None, False, False, False)
    with pytest.raises(UserError, match=words):
        frame_size(Video(b"", limits), (100, 100), frames, settings, "clip")
