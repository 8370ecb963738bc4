"""Read the properties of a video file, and its frames by number.

Frame i is the i-th picture that a player shows, counted from 0, whatever the order and the times in which the file
stores the frames. Frames that the edit list of the file cuts off are not shown, and not counted.
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
from qwenvl_train.data.media.picture_files import is_huge
from qwenvl_train.data.sample import Content
from qwenvl_train.errors import UserError

_MP4, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_VP8_SHOWN = 0x10
_SAME_RATE = 0.01
_INT_MAX = 2**31 - 1
_MOST_FRAMES = 10_000_000
"""More than a day has at 60 frames per second."""
_CUT_OFF = "is truncated or damaged. Replace it."


@dataclass(frozen=True)
class VideoFacts:
    frames: int
    rate: float
    """The number of frames per second, on average over the file."""
    size: tuple[int, int]
    """The height and width of a frame, upright."""


def video_facts(content: Content, name: str) -> VideoFacts:
    """Return the facts about a video, from the container and one decoded frame. Only a decoded frame shows how the
    video is turned."""
    return _facts(content, name) if isinstance(content, bytes) else _facts_of_file(file_at(content, name))


def read_frames(content: Content, wanted: Sequence[int], name: str) -> Iterator[np.ndarray]:
    """Yield [height, width, 3] uint8 RGB, upright, for each wanted frame. The numbers in `wanted` ascend."""
    to_rgb = VideoReformatter()
    with _opened(content, name) as (container, stream):
        # Only these two containers say exactly where decoding can start; in others, frames are counted from the start.
        packets = _packets_of(content, name) if container.format.name in (_MP4, _MATROSKA) else None
        if packets is None or packets.times is None:
            found = _by_counting(container, stream, wanted)
        else:
            found = _by_seeking(container, stream, packets.times, packets.keys, wanted)
        for index in wanted:
            frame = next(found, None)
            if frame is None or frame.is_corrupt:
                raise UserError(f"{name} cannot be decoded at frame {index}: it {_CUT_OFF}")
            pixels = to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
            turns = _quarter_turns(frame, name)
            yield np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


@dataclass(frozen=True)
class _Packets:
    """The facts about a video that are found by reading the whole file without decoding it."""

    frames: int
    rate: float
    """The number of frames per second, or 0 when it is unknown."""
    times: np.ndarray | None
    """[frames] int64: the time at which each frame is shown, in the stream's units. None when the times do not identify
    the frames."""
    keys: np.ndarray
    """[key frames]: the time at which each frame is shown from which decoding can start."""


# The facts about a file are needed when a row is laid out and when it is rendered, and often by several rows.
@lru_cache(maxsize=1024)
def _facts_of_file(file: File) -> VideoFacts:
    return _facts(file.path, file.name)


# The packets of an hour of video take a megabyte.
@lru_cache(maxsize=64)
def _packets_of_file(file: File) -> _Packets:
    return _packets(file.path, file.name)


def _packets_of(content: Content, name: str) -> _Packets:
    return _packets(content, name) if isinstance(content, bytes) else _packets_of_file(file_at(content, name))


def _facts(content: Content, name: str) -> VideoFacts:
    with _opened(content, name) as (container, stream):
        width, height = stream.width, stream.height
        if is_huge(height, width):
            raise UserError(
                f"{name} has frames of {width}×{height} pixels, like a decompression bomb. "
                "Make it smaller or remove the row."
            )
        if container.format.name == _MP4 and stream.frames:
            frames, rate = _from_index(container, stream, name)
        else:
            packets = _packets_of(content, name)
            frames, rate = packets.frames, packets.rate
        first = next(container.decode(stream), None)
        if first is None or not frames:
            raise UserError(f"{name} has no frame that can be decoded. Replace it.")
        if rate == 0:
            raise UserError(f"{name} does not state its frame rate. Convert it to mp4.")
        size = (first.height, first.width)
        return VideoFacts(frames, rate, size[::-1] if _quarter_turns(first, name) % 2 else size)


def _from_index(container: InputContainer, stream: VideoStream, name: str) -> tuple[int, float]:
    """Return the number of frames and the rate, from the table of all frames with which an mp4 file begins or ends."""
    # Each frame has a byte or more. A table that says otherwise could be longer than the memory.
    if len(stream.index_entries) > container.size:
        raise UserError(f"{name} {_CUT_OFF}")
    _refuse_endless(len(stream.index_entries), name)
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
            # Only a corrupt last packet means that the file ends too early: joined broadcasts have corrupt packets
            # inside.
            cut_off = packet.is_corrupt if packet.size else cut_off
            if packet.is_keyframe and packet.pts is not None:
                keys.append(packet.pts)
            if _is_shown(packet):
                frames += 1
                _refuse_endless(frames, name)
                times += [] if packet.pts is None else [packet.pts]
                order += [] if packet.dts is None else [packet.dts]
        if cut_off:
            raise UserError(f"{name} {_CUT_OFF}")
        times.sort()
        # In joined videos the times start again, and do not show how long the video lasts.
        lasts = times[-1] - times[0] if times and order == sorted(order) else 0
        return _Packets(
            frames=frames,
            rate=_rate(stream, len(times) - 1, float(lasts * (stream.time_base or 0))),
            times=np.array(times) if keys and len(set(times)) == frames else None,
            keys=np.array(sorted(keys)),
        )


def _refuse_endless(frames: int, name: str) -> None:
    if frames > _MOST_FRAMES:
        raise UserError(f"{name} has more than {_MOST_FRAMES} frames. Cut it into shorter ones.")


def _rate(stream: VideoStream, frames: int, seconds: float) -> float:
    """Return the frames per second. The rate in the header is exact when the rate is constant; otherwise it is a guess
    from the first seconds, and the counted rate is returned."""
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
    """Yield the wanted frames, decoding only from the key frame before each of them."""
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
    """Yield decoded frames. Frames that are neither chosen nor referred to by others may be left out, which saves up to
    a third of the time.

    No frames are left out with AV1: its decoder works ahead, and would leave out frames other than the intended ones.
    """
    skips = stream.codec_context.name in ("h264", "hevc")
    for packet in container.demux(stream):
        skip = skips and packet.size and packet.pts not in chosen
        stream.codec_context.skip_frame = "NONREF" if skip else "DEFAULT"
        yield from stream.decode(packet)


def _is_shown(packet: Packet) -> bool:
    if packet.size == 0 or packet.is_discard:
        return False
    # Only VP8 has separate packets for frames that are never shown and only referred to by others.
    return packet.stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & _VP8_SHOWN)


def _quarter_turns(frame: VideoFrame, name: str) -> int:
    """Return the number of quarter turns to the left that make the frame upright."""
    # Some cameras write a matrix of zeros, for which the rotation is not a valid angle.
    degrees = frame.rotation if abs(frame.rotation) <= 180 else 0
    turns = round(degrees / 90)
    if abs(degrees - 90 * turns) > 1:
        raise UserError(f"{name} is rotated by {degrees}°; only quarter turns are supported. Convert it.")
    return turns % 4


@contextmanager
def _opened(content: Content, name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and its best stream. Errors in the file that occur within the block are raised as UserError."""
    with open_file(content, name) as file:
        if _is_cut_matroska(file):
            raise UserError(f"{name} {_CUT_OFF}")
        try:
            # The video is passed as an open file and may not refer to other files, since a playlist could refer to any.
            with av.open(file, "r", options={"protocol_whitelist": "none"}, metadata_errors="replace") as container:
                stream = container.streams.best("video")
                if not isinstance(stream, VideoStream):
                    raise UserError(f"{name} has no video stream. Replace it.")
                if stream.codec_context is None:
                    raise UserError(f"{name} has a codec that is not supported. Convert it to H.264 in mp4.")
                # A frame may be larger than the first one, or than the file states.
                stream.codec_context.options = {"max_pixels": str(Pillow.MAX_IMAGE_PIXELS or _INT_MAX)}
                # The workers already share the processor, so each of them decodes with one thread.
                stream.codec_context.thread_count = 1
                yield container, stream
        except av.FFmpegError as error:
            raise UserError(f"{name} cannot be decoded: {error.strerror}. Replace it.") from None
        except IndexError:
            # PyAV numbers the streams when it opens a file, and a broadcast may begin another stream later.
            raise UserError(f"{name} changes its streams midway. Convert it to mp4 or replace it.") from None


def _is_cut_matroska(file: BinaryIO) -> bool:
    """Return whether an mkv or webm file is shorter than its header states. Reading such a file raises no error, but
    returns fewer frames."""
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
    """Return the number at `at`, whose leading zero bits state its length, and the position where it ends. The number
    is None when all of its bits are ones."""
    length = 9 - data[at].bit_length()
    ones = (1 << 7 * length) - 1
    number = int.from_bytes(data[at : at + length], "big") & ones
    return None if number == ones else number, at + length
