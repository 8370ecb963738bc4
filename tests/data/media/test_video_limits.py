"""Frame sizes equal those of the published processors by default, and each limit has the effect of its name."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import given as over
from hypothesis import strategies as st
from transformers import AutoProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

from qwenvl_train.config.schema import VideoConfig
from qwenvl_train.data.media.video_limits import frame_size
from qwenvl_train.data.media.video_settings import ClipSettings
from qwenvl_train.data.sample import Limits, Sampling, Video
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.processor import load_processor
from tests.settings import run_config

NOTHING = VideoConfig(fps=None, min_frames=None, max_frames=None, min_pixels=None, max_pixels=None, total_pixels=None)
PROCESSORS = {
    # The limits published with Qwen2.5-VL and Qwen3-VL.
    "qwen2_5_vl": Qwen2VLVideoProcessor(size={"shortest_edge": 3136, "longest_edge": 12845056}),
    "qwen3_vl": Qwen3VLVideoProcessor(size={"shortest_edge": 4096, "longest_edge": 25165824}),
    "qwen2_vl": Qwen2VLVideoProcessor(size={"shortest_edge": 20_000, "longest_edge": 90_000}),
    "qwen3_vl_moe": Qwen3VLVideoProcessor(size={"shortest_edge": 200_000, "longest_edge": 2_000_000}),
}
SETTINGS = {name: ClipSettings.of(processor, FAMILIES[name], NOTHING) for name, processor in PROCESSORS.items()}

sizes = st.tuples(st.integers(8, 3000), st.integers(8, 3000))
pairs = st.integers(1, 384)


def size_of(settings: ClipSettings, original, frames, limits=None, total_pixels=None) -> tuple[int, int]:
    video = Video("a.mp4", limits or Limits(), Sampling(total_pixels=total_pixels))
    return frame_size(video, original, frames, settings, "row 1: the video a.mp4")


@pytest.mark.parametrize("name", PROCESSORS)
@over(original=sizes, pairs=pairs)
def test_without_limits_sizes_are_the_processor_s(name, original, pairs):
    processor, settings = PROCESSORS[name], SETTINGS[name]
    assume(max(original) / min(original) <= 200)
    assume(2 * pairs * (original[0] + 28) * (original[1] + 28) < 2**32)  # a larger clip is refused
    height, width = size_of(settings, original, 2 * pairs)
    patches = processor.get_num_of_video_patches(2 * pairs, *original, {})
    assert pairs * (height // settings.patch) * (width // settings.patch) == patches


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("source", ["row", "model"])
@over(
    original=st.tuples(st.integers(100, 2000), st.integers(100, 2000)),
    pairs=pairs,
    tokens=st.integers(20, 800),
    total=st.integers(20, 800),
)
def test_limits_of_a_frame_and_of_a_clip_hold_in_every_family(name, source, original, pairs, tokens, total):
    assume(max(original) / min(original) <= 4)
    settings, frames = SETTINGS[name], 2 * pairs
    token = (settings.patch * settings.merge) ** 2
    # Each of the two limits is the stricter one in half of the cases. The model's own minimum has no effect.
    settings = replace(settings, min_pixels=settings.min_pixels and token, min_total_pixels=None)
    max_pixels, total_pixels = tokens * token, frames * total * token
    if source == "row":
        height, width = size_of(settings, original, frames, Limits(max_pixels=max_pixels), total_pixels)
    else:
        limited = replace(settings, max_pixels=max_pixels, total_pixels=total_pixels)
        height, width = size_of(limited, original, frames)
    assert height * width <= max_pixels
    assert frames * height * width <= total_pixels
    if math.prod(original) > min(max_pixels, total_pixels / frames):
        # The frame is not smaller than necessary: one more row and column of tokens would be too many.
        side = settings.patch * settings.merge
        assert (height + side) * (width + side) >= min(max_pixels, total_pixels / frames)


@pytest.mark.parametrize("name", PROCESSORS)
@over(original=st.tuples(st.integers(20, 300), st.integers(20, 300)), pairs=pairs, tokens=st.integers(4, 800))
def test_the_least_of_a_frame_holds_in_every_family(name, original, pairs, tokens):
    settings = SETTINGS[name]
    low = tokens * (settings.patch * settings.merge) ** 2
    unlimited = replace(settings, max_pixels=None, total_pixels=None)
    height, width = size_of(unlimited, original, 2 * pairs, Limits(min_pixels=low))
    assert height * width >= low


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("asked", [(100, 200), (5, 3000), (2000, 2000)])
def test_a_size_asked_for_is_taken(name, asked):
    settings = SETTINGS[name]
    side = settings.patch * settings.merge
    resized = size_of(settings, (480, 640), 768, Limits(resized_height=asked[0], resized_width=asked[1]))
    assert resized == tuple(max(1, round(length / side)) * side for length in asked)


MISTAKES = {
    "row's least above the model's most": (
        {"limits": Limits(min_pixels=100_000)},
        "its 8 frames cannot have both min_pixels 100000 and max_pixels 90000; limits that are not in the",
    ),
    "row's most below the model's least": ({"limits": Limits(max_pixels=10_000)}, "both min_pixels 20000 and"),
    "least and whole clip": ({"total_pixels": 150_000}, "both min_pixels 20000 and total_pixels 150000"),
    "long and thin": ({"original": (10, 2001)}, "is 2001×10 pixels; one side may be at most 200 times the other"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake):
    settings, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=f"^row 1: the video a.mp4.* {words}"):
        size_of(SETTINGS["qwen2_vl"], **{"original": (480, 640), "frames": 8, **settings})


def test_the_least_of_a_clip_is_a_limit_too():
    with pytest.raises(UserError, match="both a minimum of 200000 pixels for a video and max_pixels 10000"):
        size_of(SETTINGS["qwen3_vl_moe"], (480, 640), 8, Limits(max_pixels=10_000))
    with pytest.raises(UserError, match="is 20010×10 pixels; one side may be at most 200 times the other"):
        size_of(SETTINGS["qwen3_vl_moe"], (10, 20010), 8)


@pytest.mark.parametrize(
    ("name", "config", "changed"),
    [
        ("qwen2_vl", {}, {}),
        ("qwen2_vl", {"fps": 1.0, "min_frames": 8}, {"fps": 1.0, "min_frames": 8}),
        ("qwen2_vl", {"max_pixels": 50_000}, {"max_pixels": 50_000}),
        ("qwen2_vl", {"total_pixels": 10**6}, {"total_pixels": 10**6}),
        ("qwen3_vl_moe", {"min_pixels": 9000, "max_frames": 10}, {"min_pixels": 9000, "max_frames": 10}),
        ("qwen3_vl_moe", {"total_pixels": 10**6}, {"total_pixels": 10**6}),
    ],
)
def test_settings_are_the_processor_s_with_what_the_configuration_sets(name, config, changed):
    settings = ClipSettings.of(PROCESSORS[name], FAMILIES[name], VideoConfig(**{**NOTHING.model_dump(), **config}))
    assert settings == replace(SETTINGS[name], **changed)


CAPS = {
    # Settings of the run, of the checkpoint's processor, and the pixels of one frame of 1080 × 1920 in a clip of 8.
    "nothing set": ({}, {}, 640 * 1152),
    "the options of the group model": ({"max_pixels": 786_432, "total_pixels": 50_331_648}, {}, 640 * 1152),
    "no whole number of tokens": ({"max_pixels": 300_000}, {}, 384 * 704),
    "a high limit": ({"max_pixels": 10**7}, {}, 1088 * 1920),
    "a total": ({"total_pixels": 2_000_000}, {}, 352 * 640),
    "capped by the checkpoint": ({}, {"cap_pixels_per_frame": True, "max_video_tokens": 200}, 320 * 576),
    "not capped by the checkpoint": ({}, {"cap_pixels_per_frame": False}, 1088 * 1920),
    "a least that raises the cap": (
        {}, {"cap_pixels_per_frame": True, "size": {"shortest_edge": 10**6, "longest_edge": 25_165_824}}, 768 * 1344
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CAPS)
def test_the_saved_processor_makes_the_sizes_of_the_training(case, checkpoints, tmp_path):
    limits, shipped, pixels = CAPS[case]
    published = AutoProcessor.from_pretrained(checkpoints["qwen3_vl"])
    published.video_processor = Qwen3VLVideoProcessor(
        **{"size": {"shortest_edge": 4096, "longest_edge": 25_165_824}, **shipped}
    )
    published.save_pretrained(tmp_path / "published")
    (tmp_path / "published" / "config.json").write_bytes((checkpoints["qwen3_vl"] / "config.json").read_bytes())
    keys = {f"model.video.{key}": value for key, value in limits.items()}
    config = run_config(**{"model.path": str(tmp_path / "published"), "model.family": None, **keys}).model
    family = load_family(config)
    processor = load_processor(config, family)
    processor.save_pretrained(tmp_path / "saved")
    saved = AutoProcessor.from_pretrained(tmp_path / "saved").video_processor
    settings = ClipSettings.of(processor.video_processor, family, config.video)
    assert settings == ClipSettings.of(saved, family, NOTHING)
    assert math.prod(size_of(settings, (1080, 1920), 8)) == pixels
    rng = np.random.default_rng(0)
    for height, width, pairs in rng.integers((40, 40, 1), (2200, 2200, 384), (200, 3)).tolist():
        resized = size_of(settings, (height, width), 2 * pairs)
        patches = saved.get_num_of_video_patches(2 * pairs, height, width)
        assert pairs * math.prod(resized) == patches * settings.patch**2, (height, width, pairs)
    clip = torch.zeros(2, 3, 1080, 1920, dtype=torch.uint8)
    _, rows, columns = saved([clip], do_sample_frames=False, return_tensors="pt")["video_grid_thw"][0].tolist()
    assert size_of(settings, (1080, 1920), 2) == (rows * settings.patch, columns * settings.patch)


def test_the_two_kinds_of_settings():
    assert SETTINGS["qwen2_vl"] == ClipSettings(14, 2, 2, 2.0, 4, 768, 20_000, 90_000, None, None, False, False, False)
    assert SETTINGS["qwen2_5_vl"].timed
    assert SETTINGS["qwen3_vl_moe"] == ClipSettings(
        16, 2, 2, 2.0, 4, 768, None, None, 200_000, 2_000_000, whole_clip=True, capped=False, timed=True
    )
