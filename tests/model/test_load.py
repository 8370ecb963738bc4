"""Checkpoints store the video settings of a run, as far as the family's video processor has fields for them."""

import pytest
from transformers import AutoProcessor

from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_processor
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.processor import load_processor
from tests.settings import run_config

LIMITS = {"min_pixels": 4000, "max_pixels": 9000, "total_pixels": 100_000}


def loaded(path, **video):
    settings = {f"model.video.{key}": value for key, value in video.items()}
    config = run_config(**{"model.path": str(path), "model.family": None, **settings}).model
    return load_processor(config, load_family(config))


def test_limits_are_saved(model_type, checkpoints, tmp_path):
    loaded(checkpoints[model_type], fps=1.5, min_frames=6, max_frames=10, **LIMITS).save_pretrained(tmp_path)
    saved = AutoProcessor.from_pretrained(tmp_path).video_processor
    assert (saved.fps, saved.min_frames, saved.max_frames, saved.cap_pixels_per_frame) == (1.5, 6, 10, False)
    least = build_processor(model_type).video_processor.size["shortest_edge"]
    expected = {"frame": (4000, 9000), "clip": (least, 100_000)}[FAMILIES[model_type].video_limits]
    assert (saved.size["shortest_edge"], saved.size["longest_edge"]) == expected


def test_without_limits_the_checkpoint_s_own_stay(model_type, checkpoints):
    ours, published = loaded(checkpoints[model_type]).video_processor, build_processor(model_type).video_processor
    for key in ("fps", "min_frames", "max_frames", "size", "patch_size"):
        assert getattr(ours, key) == getattr(published, key)


MISTAKES = {
    "frames": ("qwen2_vl", {"min_frames": 20}, r"model.video.min_frames \(20\) is above model.video.max_frames \(16\)"),
    "frame": ("qwen2_vl", {"min_pixels": 20_000}, r"min_pixels \(20000\) is above model.video.max_pixels \(12544\)"),
    "frame of a clip": ("qwen3_vl", {"min_pixels": 5000, "max_pixels": 4000}, r"min_pixels \(5000\) is above"),
    "clip": ("qwen3_vl", {"total_pixels": 16_000}, r"total_pixels \(16000\) is below 16384, the least"),
    "clip of two": (
        "qwen2_vl",
        {"total_pixels": 6000},
        r"total_pixels \(6000\) is too small for two frames",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_contradictions_are_named(mistake, checkpoints):
    model_type, video, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=words):
        loaded(checkpoints[model_type], **video)


def test_another_rule_in_the_checkpoint_is_refused(tmp_path, checkpoints):
    processor = AutoProcessor.from_pretrained(checkpoints["qwen2_5_vl"])
    processor.video_processor.cap_pixels_per_frame = True
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((checkpoints["qwen2_5_vl"] / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"cap_pixels_per_frame=true, which is not supported for Qwen2\.5-VL: set it"):
        loaded(tmp_path)
