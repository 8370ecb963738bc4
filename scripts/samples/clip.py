"""Clips in which shapes are shown for whole seconds."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image

from samples.drawing import NAMES, Shape, blank

SIZE = 64, 64
FPS = 4
SECONDS = range(6, 10)
"""How long a clip can be."""
RADIUS = 20


@dataclass(frozen=True)
class Shown:
    name: str
    start: int
    end: int
    """The second at which the shape is no longer shown."""

    @property
    def sentence(self) -> str:
        return f"A shape is shown: {self.name}."


def plan_clip(rng: random.Random) -> tuple[int, list[Shown]]:
    """Return the length of a clip in seconds, and the two shapes that are shown in it, one after the other."""
    seconds = rng.choice(SECONDS)
    times = sorted(rng.sample(range(seconds + 1), 4))
    one, other = rng.sample(NAMES, 2)
    return seconds, [Shown(one, *times[:2]), Shown(other, *times[2:])]


def frames(seconds: int, shown: Sequence[Shown], fps: int = FPS) -> list[Image.Image]:
    drawn = []
    for number in range(seconds * fps):
        image, canvas = blank(SIZE)
        for one in shown:
            if one.start <= number / fps < one.end:
                Shape(one.name, SIZE[0] // 2, SIZE[1] // 2, RADIUS).draw(canvas)
        drawn.append(image)
    return drawn


def write_clip(path: Path, images: Sequence[Image.Image], fps: int = FPS) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in images:
            file.mux(stream.encode(av.VideoFrame.from_image(image)))
        file.mux(stream.encode())
