"""The frames sampled from a video are those that qwen-vl-utils requests from its decoder."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from qwen_vl_utils import vision_process

from qwenvl_train.data.media.video_sampling import choose_frames
from qwenvl_train.data.media.video_settings import ClipSettings
from qwenvl_train.data.sample import Sampling, given_options
from qwenvl_train.errors import UserError

SETTINGS = ClipSettings(
    patch=16,
    merge=2,
    frames_per_patch=2,
    fps=2.0,
    min_frames=4,
    max_frames=768,
    min_pixels=None,
    max_pixels=None,
    min_total_pixels=None,
    total_pixels=None,
    whole_clip=True,
    capped=False,
    timed=True,
)


@pytest.fixture
def published(monkeypatch):
    """Run qwen-vl-utils' own reader with a decoder that only records the requested frames."""

    def choose(options: dict, total: int, rate: float) -> tuple[tuple[int, ...], float]:
        asked = []

        class Decoder:
            def __init__(self, path, num_ffmpeg_threads):
                self.metadata = SimpleNamespace(average_fps=rate, num_frames=total)

            def get_frames_at(self, indices):
                asked.extend(indices)
                return SimpleNamespace(data=torch.zeros(len(indices), 3, 1, 1))

        module = ModuleType("torchcodec.decoders")
        module.VideoDecoder = Decoder
        monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
        monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
        _, _, sampled = vision_process._read_video_torchcodec({"video": "clip.mp4", **options})
        return tuple(asked), sampled

    return choose


LENGTHS = [(300, 30.0), (299, 29.97002997), (2, 10.0), (7, 25.0), (9001, 23.976), (50, 1.0), (100_001, 60.0)]
CHOICES = [
    Sampling(),
    Sampling(fps=1.0),
    Sampling(fps=0.3),
    Sampling(fps=100.0),
    Sampling(fps=4.0, max_frames=16),
    Sampling(min_frames=20),
    Sampling(min_frames=5, max_frames=7),
    Sampling(nframes=2),
    Sampling(nframes=5),
    Sampling(nframes=33),
    Sampling(video_start=2.0, video_end=5.5),
    Sampling(video_start=3.3, fps=8.0),
    Sampling(video_end=4.0, nframes=4),
    Sampling(video_end=10.4),
]


@pytest.mark.parametrize(("total", "rate"), LENGTHS)
@pytest.mark.parametrize("sampling", CHOICES)
def test_frames_are_the_published_ones(sampling, total, rate, published):
    options = given_options(sampling)
    defaults = {} if "nframes" in options else {"fps": 2.0, "min_frames": 4, "max_frames": 768}
    try:
        expected = published(defaults | options, total, rate)
    except ValueError:
        with pytest.raises(UserError, match=r"^clip has "):
            choose_frames(sampling, SETTINGS, total, rate, "clip")
        return
    beyond = sampling.video_end is not None and sampling.video_end > total / rate + 1
    if beyond:
        with pytest.raises(UserError, match=r"clip has video_end .* is only .* seconds long"):
            choose_frames(sampling, SETTINGS, total, rate, "clip")
        return
    frames, sampled_fps = choose_frames(sampling, SETTINGS, total, rate, "clip")
    assert (frames, sampled_fps) == expected
    assert len(frames) % 2 == 0
    assert list(frames) == sorted(set(frames))


def test_what_the_row_leaves_open_is_the_model_s():
    settings = replace(SETTINGS, fps=1.0, min_frames=6, max_frames=8)
    assert len(choose_frames(Sampling(), settings, 300, 30, "clip")[0]) == 8
    assert len(choose_frames(Sampling(max_frames=64), settings, 300, 30, "clip")[0]) == 10
    assert len(choose_frames(Sampling(), settings, 60, 30, "clip")[0]) == 6
    assert len(choose_frames(Sampling(min_frames=2), settings, 60, 30, "clip")[0]) == 2


def test_nothing_is_printed(capsys, caplog):
    choose_frames(Sampling(fps=100.0), SETTINGS, 300, 30, "clip")
    assert capsys.readouterr() == ("", "")
    assert not caplog.records


MISTAKES = {
    "too many": (Sampling(nframes=302), "has 300 frames to choose from, but nframes is 302"),
    "too many of a part": (Sampling(nframes=40, video_end=1), "has 31 frames to choose from, but nframes is 40"),
    "one": (Sampling(nframes=1), "nframes is 1; give an even number from 2"),
    "crossed": (Sampling(max_frames=3), "no even number of frames from min_frames 4 to max_frames 3"),
    "odd and equal": (
        Sampling(min_frames=5, max_frames=5),
        "no even number of frames from min_frames 5 to",
    ),
    "one at most": (Sampling(min_frames=1, max_frames=1), "no even number of frames"),
    "late start": (Sampling(video_start=10), "has video_start 10, but is only 10.0 seconds long"),
    "late end": (Sampling(video_end=11.1), "has video_end 11.1, but is only 10.0 seconds long"),
    "short part": (Sampling(video_start=5, video_end=5.01), "fewer than 2 frames between video_start and video_end"),
    "last moment": (Sampling(video_start=9.99), "fewer than 2 frames between video_start and video_end"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake):
    sampling, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=f"^row 1: the video a.mp4 .*{words}"):
        choose_frames(sampling, SETTINGS, 300, 30, "row 1: the video a.mp4")
