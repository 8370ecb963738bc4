"""What a video file holds, and its frames by number.

Frame i is the i-th picture that a player shows, counted from 0, in whatever order and at whatever times the file
stores them. What its edit list cuts off is not shown, and not counted.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image as Pillow

from qwenvl_train.data.media.files import File, file_at, open_file
from qwenvl_train.data.sample import Content
from qwenvl_train.errors import UserError

_MP4, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_VP8_SHOWN = 0x10
_SAME_RATE = 0.01
_CUT_OFF = "is cut off or damaged. Replace it."


@dataclass(frozen=True)
class VideoFacts:
    frames: int
    rate: float
    """Frames per second, on average over the file."""
    size: tuple[int, int]
    """Height and width, upright."""


def video_facts(content: Content, name: str) -> VideoFacts:
    """From the container, and one decoded frame: it alone tells how the video is turned."""
    return _facts(content, name) if isinstance(content, bytes) else _facts_of_file(file_at(content, name))


def read_frames(content: Content, wanted: Sequence[int], name: str) -> Iterator[np.ndarray]:
    """[height, width, 3] uint8 RGB, upright, of these frames, whose numbers ascend."""
    to_rgb = VideoReformatter()
    with _opened(content, name) as (container, stream):
        # Only these two kinds tell exactly where decoding can start; elsewhere frames are counted from the beginning.
        packets = _packets_of(content, name) if container.format.name in (_MP4, _MATROSKA) else None
        if packets is None or packets.times is None:
            found = _by_counting(container, stream, wanted)
        else:
            found = _by_seeking(container, stream, packets.times, packets.keys, wanted)
        for index in wanted:
            frame = next(found, None)
            if frame is None or frame.is_corrupt:
                raise UserError(f"{name} does not decode at frame {index}: it {_CUT_OFF}")
            pixels = to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
            turns = _quarter_turns(frame, name)
            yield np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


@dataclass(frozen=True)
class _Packets:
    """What reading a whole file tells, without decoding it."""

    frames: int
    rate: float
    """0 where unknown."""
    times: np.ndarray | None
    """[frames] int64: when each is shown, in the stream's units; None where they do not tell frames apart."""
    keys: np.ndarray
    """When each frame is shown at which decoding can start."""


# A file is looked at when a row is laid out and when it is rendered, and often by several rows.
@lru_cache(maxsize=1024)
def _facts_of_file(file: File) -> VideoFacts:
    return _facts(file.path, file.name)


# An hour of video takes a megabyte.
@lru_cache(maxsize=64)
def _packets_of_file(file: File) -> _Packets:
    return _packets(file.path, file.name)


def _packets_of(content: Content, name: str) -> _Packets:
    return _packets(content, name) if isinstance(content, bytes) else _packets_of_file(file_at(content, name))


def _facts(content: Content, name: str) -> VideoFacts:
    with _opened(content, name) as (container, stream):
        width, height = stream.width, stream.height
        if width * height > (Pillow.MAX_IMAGE_PIXELS or math.inf):
            raise UserError(
                f"{name} has frames of {width}×{height} pixels, as a decompression bomb would. "
                "Make it smaller or leave the row out."
            )
        if container.format.name == _MP4 and stream.frames:
            frames, rate = _from_index(container, stream, name)
        else:
            packets = _packets_of(content, name)
            frames, rate = packets.frames, packets.rate
        first = next(container.decode(stream), None)
        if first is None or not frames:
            raise UserError(f"{name} has no frame that decodes. Replace it.")
        if rate == 0:
            raise UserError(f"{name} does not say how many frames it has per second. Convert it to mp4.")
        size = (first.height, first.width)
        return VideoFacts(frames, rate, size[::-1] if _quarter_turns(first, name) % 2 else size)


def _from_index(container: InputContainer, stream: VideoStream, name: str) -> tuple[int, float]:
    """Number of frames and rate; an mp4 file begins or ends with a table of all its frames."""
    entries = list(stream.index_entries)
    if max((entry.pos + entry.size for entry in entries), default=0) > container.size:
        raise UserError(f"{name} {_CUT_OFF}")
    shown = sum(not entry.is_discard for entry in entries)
    seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0
    return shown, _rate(stream, shown, seconds)


def _packets(content: Content, name: str) -> _Packets:
    frames = 0
    times: list[int] = []
    keys: list[int] = []
    order: list[int] = []
    cut_off = False
    with _opened(content, name) as (container, stream):
        for packet in container.demux(stream):
            # Only of the last packet it means that the file ends too early: joined broadcasts have such packets inside.
            cut_off = packet.is_corrupt if packet.size else cut_off
            if packet.is_keyframe and packet.pts is not None:
                keys.append(packet.pts)
            if _is_shown(packet):
                frames += 1
                times += [] if packet.pts is None else [packet.pts]
                order += [] if packet.dts is None else [packet.dts]
        if cut_off:
            raise UserError(f"{name} {_CUT_OFF}")
        times.sort()
        # Where videos were joined the times start again, and do not tell how long it lasts.
        lasts = times[-1] - times[0] if times and order == sorted(order) else 0
        return _Packets(
            frames=frames,
            rate=_rate(stream, len(times) - 1, float(lasts * (stream.time_base or 0))),
            times=np.array(times) if keys and len(set(times)) == frames else None,
            keys=np.array(sorted(keys)),
        )


def _rate(stream: VideoStream, frames: int, seconds: float) -> float:
    """The header's rate is exact where it is constant; else it is a guess from the first seconds."""
    stated = float(stream.average_rate or 0)
    if frames < 1 or seconds <= 0:
        return stated
    counted = frames / seconds
    return stated if abs(stated - counted) < _SAME_RATE * counted else counted


def _by_counting(container: InputContainer, stream: VideoStream, wanted: Sequence[int]) -> Iterator[VideoFrame | None]:
    frames = enumerate(container.decode(stream))
    for index in wanted:
        yield next((frame for number, frame in frames if number == index), None)


def _by_seeking(
    container: InputContainer, stream: VideoStream, times: np.ndarray, keys: np.ndarray, wanted: Sequence[int]
) -> Iterator[VideoFrame | None]:
    """Decodes only from the key frame before each wanted one."""
    frames: Iterator[VideoFrame] = iter(())
    reached: float = -math.inf
    chosen = {int(times[index]) for index in wanted if index < len(times)}
    for index in wanted:
        time: float = int(times[index]) if index < len(times) else math.inf
        key = int(keys[max(0, int(np.searchsorted(keys, time, side="right")) - 1)])
        if key > reached:
            container.seek(key, stream=stream)
            frames = _decode(container, stream, chosen)
        frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= time), None)
        reached = time
        yield frame if frame is not None and frame.pts == time else None


def _decode(container: InputContainer, stream: VideoStream, chosen: set[int]) -> Iterator[VideoFrame]:
    """Frames that are neither chosen nor referred to by others may be left out, which saves up to a third of the time.

    Not so with AV1: its decoder works ahead, and would leave out others than it was told.
    """
    skips = stream.codec_context.name in ("h264", "hevc")
    for packet in container.demux(stream):
        skip = skips and packet.size and packet.pts not in chosen
        stream.codec_context.skip_frame = "NONREF" if skip else "DEFAULT"
        yield from stream.decode(packet)


def _is_shown(packet: Packet) -> bool:
    if packet.size == 0 or packet.is_discard:
        return False
    # VP8 alone puts the frames that only others refer to into packets of their own.
    return packet.stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & _VP8_SHOWN)


def _quarter_turns(frame: VideoFrame, name: str) -> int:
    """How often the frame has to be turned to the left."""
    # A matrix of zeros, as some cameras write, comes out as no angle at all.
    degrees = frame.rotation if abs(frame.rotation) <= 180 else 0
    turns = round(degrees / 90)
    if abs(degrees - 90 * turns) > 1:
        raise UserError(f"{name} is to be shown turned by {degrees}°; only quarter turns are read. Convert it.")
    return turns % 4


@contextmanager
def _opened(content: Content, name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Whatever the file is guilty of in the block is told as a UserError."""
    with open_file(content, name) as file:
        if _is_cut_matroska(file):
            raise UserError(f"{name} {_CUT_OFF}")
        try:
            # As an open file it has no address, and may name no other: playlists would lead anywhere.
            with av.open(file, "r", options={"protocol_whitelist": "none"}, metadata_errors="replace") as container:
                stream = container.streams.best("video")
                if not isinstance(stream, VideoStream):
                    raise UserError(f"{name} has no pictures, at most sound. Replace it.")
                if stream.codec_context is None:
                    raise UserError(f"{name} is stored in a way that is not read. Convert it to H.264 in mp4.")
                # Workers share the processor already.
                stream.codec_context.thread_count = 1
                yield container, stream
        except av.FFmpegError as error:
            raise UserError(f"{name} does not decode: {error.strerror}. Replace it.") from None
        except IndexError:
            # PyAV numbers the streams when it opens a file, and broadcasts may begin another one later.
            raise UserError(f"{name} changes what it holds on the way. Convert it to mp4 or replace it.") from None


def _is_cut_matroska(file: BinaryIO) -> bool:
    """Whether an mkv or webm file is shorter than it says; reading it, one finds only fewer frames."""
    start = file.read(64).ljust(128, b"\0")
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not start.startswith(_EBML):
        return False
    size, at = _ebml_number(start, len(_EBML))
    segment = at + (size or 0)
    if start[segment : segment + 4] != _SEGMENT:
        return False
    size, at = _ebml_number(start, segment + 4)
    return size is not None and at + size > end


def _ebml_number(data: bytes, at: int) -> tuple[int | None, int]:
    """A number whose leading zero bits tell its length, None where all others are ones; and where it ends."""
    length = 9 - data[at].bit_length()
    ones = (1 << 7 * length) - 1
    number = int.from_bytes(data[at : at + length], "big") & ones
    return None if number == ones else number, at + length
