"""Writes small test videos whose frames show their own number, in every kind of file that is read."""

import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

os.environ.setdefault("SVT_LOG", "1")

WIDTH, HEIGHT = 160, 120
_BITS, _BAND = 10, slice(8, 40)


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """[height, width, 3]: a colour of its own, and a band of ten white or black blocks, the number's bits."""
    colour = [(number * step) % 160 + 48 for step in (37, 59, 83)]
    picture = np.full((height, width, 3), colour, dtype=np.uint8)
    for bit in range(_BITS):
        picture[_BAND, bit * width // _BITS : (bit + 1) * width // _BITS] = 255 * (number >> bit & 1)
    return picture


def number_of(picture: np.ndarray) -> int:
    """What `numbered` wrote, also after lossy coding."""
    blocks = np.array_split(picture[_BAND.start + 8 : _BAND.stop - 8].mean(axis=(0, 2)), _BITS)
    return sum(1 << bit for bit, block in enumerate(blocks) if block.mean() > 127)


def write_video(
    path: Path,
    frames: int = 30,
    fps: float = 10,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    turned: int = 0,
) -> Path:
    """`times`: when each frame is shown, in time_base; `turned`: by how many degrees to the right it is shown."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = time_base
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], time_base
            file.mux(stream.encode(frame.reformat(format=pixels)))
        file.mux(stream.encode())
    if hasattr(os, "sched_setscheduler"):
        # As root, the AV1 encoder gives this thread a real-time priority, which would slow down all other processes.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if turned:
        cosine, sine = {90: (0, 1 << 16), 180: (-1 << 16, 0), 270: (0, -1 << 16)}[turned]
        write_matrix(path, (cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30))
    return path


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def hide_frame(source: Path, path: Path, number: int) -> Path:
    """A VP8 file in which one frame is only referred to, and never shown, as two-pass encoders write them."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for index, packet in enumerate(packet for packet in before.demux(video=0) if packet.size):
            data = bytearray(bytes(packet))
            if index == number:
                data[0] &= ~0x10
            written = av.Packet(bytes(data))
            written.pts, written.dts, written.time_base = packet.pts, packet.dts, packet.time_base
            written.is_keyframe = packet.is_keyframe
            written.stream = stream
            after.mux(written)
    return path


def decoded(path: Path) -> list[np.ndarray]:
    """Every frame from the beginning, as stored: what exact reading is compared with."""
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def write_matrix(path: Path, matrix: Sequence[int]) -> None:
    """Into an mp4 file's track header (ISO 14496-12): how its pictures are turned when shown."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


B_FRAMES = {"bf": "3", "g": "12"}
OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:bframes=3"}
UNEVEN = [40 * number + 900 * (number // 7) for number in range(60)]
"""Seven frames of a 25th of a second, then almost a second's pause, in milliseconds."""

KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"fps": 30, "options": B_FRAMES},
    "h264.mkv": {"fps": 30, "options": B_FRAMES},
    "h264.avi": {"fps": 30, "options": B_FRAMES},
    "h264.ts": {"fps": 30, "options": B_FRAMES},
    "index-first.mp4": {"fps": 24, "options": B_FRAMES, "container": {"movflags": "faststart"}},
    "fragments.mp4": {"fps": 30, "options": B_FRAMES, "container": {"movflags": "frag_keyframe+empty_moov"}},
    "ntsc.mp4": {"fps": 30000 / 1001, "options": B_FRAMES},
    "open-gop.mp4": {"fps": 30, "options": OPEN_GOP},
    "open-gop.mkv": {"fps": 30, "options": OPEN_GOP},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=error:keyint=12:bframes=3"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "11", "g": "12"}},
    "mpeg4.mp4": {"fps": 25, "codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "mpeg4.avi": {"fps": 25, "codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "vp8.webm": {"fps": 30, "codec": "libvpx", "options": {"g": "12"}},
    "vp9.webm": {"fps": 30, "codec": "libvpx-vp9", "options": {"g": "12"}},
    "moving.gif": {"codec": "gif", "pixels": "rgb8"},
    "uneven.mp4": {"options": B_FRAMES, "times": UNEVEN},
    "uneven.mkv": {"options": B_FRAMES, "times": UNEVEN},
    "crowded.mkv": {"codec": "mjpeg", "pixels": "yuvj420p", "times": range(60), "time_base": Fraction(1, 2000)},
}
"""60 frames each."""
