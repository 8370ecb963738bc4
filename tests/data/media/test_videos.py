"""Videos from files and from lists of frames equal the output of each family's own processor for the same frames."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from transformers.video_utils import VideoMetadata

from qwenvl_train.config.schema import VideoConfig
from qwenvl_train.data.media.videos import ClipSettings, ClipSize, load_clip, measure_clip
from qwenvl_train.data.sample import Limits, Sampling, Video
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_processor
from tests.videos import B_FRAMES, decoded, numbered, write_video

NOTHING = VideoConfig(fps=None, min_frames=None, max_frames=None, min_pixels=None, max_pixels=None, total_pixels=None)
WHERE = "rows.jsonl:3 (id a)"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A video of 6 seconds."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_video(path, 90, 15, (150, 110), options=B_FRAMES)


def settings_of(model_type: str, **config) -> ClipSettings:
    video = VideoConfig(**{**NOTHING.model_dump(), **config})
    return ClipSettings.of(build_processor(model_type).video_processor, FAMILIES[model_type], video)


def as_published(model_type: str, frames: list[np.ndarray], size: ClipSize, total: int) -> dict:
    """Return the output of the family's full processor for these frames and their times."""
    processor = build_processor(model_type)
    metadata = VideoMetadata(total_num_frames=total, fps=size.file_fps, frames_indices=list(size.frames))
    text = "<|vision_start|><|video_pad|><|vision_end|>"
    return processor(
        text=[text],
        videos=[torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_metadata=True,
        return_tensors="pt",
    ) | {"tokenizer": processor.tokenizer, "processor": processor.video_processor}


def assert_equal(model_type: str, planes: np.ndarray, size: ClipSize, expected: dict) -> None:
    processor = expected["processor"]
    assert list(size.grid) == expected["video_grid_thw"][0].tolist()
    ids = expected["input_ids"][0]
    assert size.tokens == (ids == expected["tokenizer"].convert_tokens_to_ids("<|video_pad|>")).sum()
    # The pixels of frames 2t and 2t+1 next to each other, as in the published patches, normalised in float32.
    steps, patches = size.grid[0], size.grid[1] * size.grid[2]
    shape = (steps, processor.temporal_patch_size, patches, processor.patch_size**2, 3)
    values = planes.reshape(shape).transpose(0, 2, 4, 1, 3).astype(np.float32)
    mean, std = (
        np.array(numbers, dtype=np.float32)[:, None, None] * np.float32(255)
        for numbers in (processor.image_mean, processor.image_std)
    )
    assert np.array_equal(((values - mean) / std).reshape(steps * patches, -1), expected["pixel_values_videos"].numpy())
    match FAMILIES[model_type].video_time:
        case "seconds":
            assert torch.equal(expected["second_per_grid_ts"], torch.tensor([2 / size.sampled_fps]))
        case "timestamps":
            told = re.findall(r"<(\d+\.\d) seconds>", expected["tokenizer"].decode(ids))
            assert told == [f"{seconds:.1f}" for seconds in size.timestamps]


SAMPLINGS = {
    "plain": Sampling(),
    "slow": Sampling(fps=0.9),
    "part": Sampling(video_start=1.5, video_end=4.0, fps=3.0),
    "counted": Sampling(nframes=6),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_file_equals_the_published_processor(name, model_type, clip):
    settings = settings_of(model_type)
    video = Video(str(clip), sampling=SAMPLINGS[name])
    size = measure_clip(video, settings, WHERE)
    assert size.original == (110, 150)
    assert size.file_fps == 15
    every = decoded(clip)
    total = 38 if name == "part" else 90
    expected = as_published(model_type, [every[number] for number in size.frames], size, total)
    assert size.sampled_fps == len(size.frames) / total * 15
    planes = load_clip(video, size, settings, WHERE)
    assert planes.dtype == np.uint8
    assert len(planes) == len(size.frames) * size.grid[1] * size.grid[2]
    assert_equal(model_type, planes, size, expected)
    assert np.array_equal(planes, load_clip(Video(clip.read_bytes()), size, settings, WHERE))


def test_a_limit_that_the_processor_can_hold_gives_what_it_gives(model_type, clip):
    """Hugging Face's processor gets the same limit under its own name."""
    limit = {"frame": {"max_pixels": 5000}, "clip": {"total_pixels": 60_000}}[FAMILIES[model_type].video_limits]
    settings, video = settings_of(model_type, **limit), Video(str(clip))
    size = measure_clip(video, settings, WHERE)
    processor = build_processor(model_type).video_processor
    processor.size = {**dict(processor.size), "longest_edge": next(iter(limit.values()))}
    every = torch.from_numpy(np.stack(decoded(clip))).permute(0, 3, 1, 2)
    expected = processor([every[list(size.frames)]], do_sample_frames=False, return_tensors="pt")
    assert list(size.grid) == expected["video_grid_thw"][0].tolist()
    assert size.tokens < measure_clip(video, settings_of(model_type), WHERE).tokens


def test_a_turned_file_equals_its_upright_frames(model_type, tmp_path):
    path = write_video(tmp_path / "phone.mp4", 12, 4, (150, 110), turned=90)
    settings, video = settings_of(model_type), Video(str(path))
    size = measure_clip(video, settings, WHERE)
    assert size.original == (150, 110)
    every = [np.ascontiguousarray(np.rot90(frame, -1)) for frame in decoded(path)]
    expected = as_published(model_type, [every[number] for number in size.frames], size, 12)
    assert_equal(model_type, load_clip(video, size, settings, WHERE), size, expected)


def save_frames(folder: Path, count: int, size: tuple[int, int] = (150, 110)) -> tuple[str, ...]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Pillow.fromarray(numbered(number, *size)).save(path)
    return tuple(map(str, paths))


@pytest.mark.parametrize("count", [2, 5, 6])
def test_a_list_equals_the_published_processor(count, model_type, tmp_path):
    settings = settings_of(model_type)
    video = Video(save_frames(tmp_path, count), sampling=Sampling(fps=1.6))
    size = measure_clip(video, settings, WHERE)
    assert size.frames == {2: (0, 1), 5: (0, 1, 2, 3, 4, 4), 6: (0, 1, 2, 3, 4, 5)}[count]
    assert (size.file_fps, size.sampled_fps) == (1.6, 1.6)
    expected = as_published(model_type, [numbered(number, 150, 110) for number in size.frames], size, len(size.frames))
    assert_equal(model_type, load_clip(video, size, settings, WHERE), size, expected)


def test_frames_of_a_list_are_read_as_pictures_are(tmp_path):
    """Frames can be given as bytes, and are rotated upright."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    contents = []
    for number in range(2):
        file = io.BytesIO()
        Pillow.fromarray(np.rot90(numbered(number, 150, 110))).save(file, "png", exif=exif)
        contents.append(file.getvalue())
    settings = settings_of("qwen2_vl")
    turned = Video(tuple(contents))
    size = measure_clip(turned, settings, WHERE)
    assert size.original == (110, 150)
    upright = Video(save_frames(tmp_path, 2))
    assert size == measure_clip(upright, settings, WHERE)
    assert np.array_equal(*(load_clip(video, size, settings, WHERE) for video in (turned, upright)))


def test_only_qwen2_needs_no_rate_of_a_list(model_type, tmp_path):
    video, settings = Video(save_frames(tmp_path, 4)), settings_of(model_type)
    if model_type == "qwen2_vl":
        assert measure_clip(video, settings, WHERE).sampled_fps == 2
        return
    with pytest.raises(UserError, match=r"rows.jsonl:3 \(id a\): the video of 4 frames needs fps, their frame rate"):
        measure_clip(video, settings, WHERE)


def test_the_row_goes_before_the_model(model_type, clip):
    settings = settings_of(model_type, max_pixels=6000)
    sizes = [
        measure_clip(Video(str(clip), limits, sampling), settings, WHERE)
        for limits, sampling in [
            (Limits(), Sampling()),
            (Limits(max_pixels=12_000), Sampling()),
            (Limits(), Sampling(total_pixels=45_000)),
            (Limits(resized_height=64, resized_width=128), Sampling()),
        ]
    ]
    areas = [size.resized[0] * size.resized[1] for size in sizes]
    assert 3000 < areas[0] <= 6000 < areas[1] <= 12_000
    assert len(sizes[2].frames) * areas[2] <= 45_000
    assert sizes[3].resized == {28: (56, 140), 32: (64, 128)}[settings.patch * settings.merge]


def one_frame(folder: Path) -> Video:
    return Video(str(write_video(folder / "one.mp4", 1)))


def mixed_sizes(folder: Path) -> Video:
    paths = save_frames(folder, 4)
    Pillow.fromarray(numbered(2, 40, 30)).save(paths[2])
    return Video(paths, sampling=Sampling(fps=1.0))


def broken_picture(folder: Path) -> Video:
    paths = save_frames(folder, 4)
    Path(paths[1]).write_bytes(b"no picture")
    return Video(paths, sampling=Sampling(fps=1.0))


def long_and_thin(folder: Path) -> Video:
    return Video(str(write_video(folder / "thin.mp4", 4, size=(4040, 20))))


MISTAKES = {
    "one frame": (one_frame, r"the video .*one\.mp4 has 1 frame, but a video needs 2 or more; give it as an image"),
    "missing": (lambda folder: Video(str(folder / "no.mp4")), r"the video .*no\.mp4 does not exist"),
    "no video in the row": (lambda folder: Video(b"123"), r"the video of 3 bytes in the row cannot be decoded"),
    "list of one": (lambda folder: Video(save_frames(folder, 1)), "the video of 1 frames is too short"),
    "mixed sizes": (mixed_sizes, "mixes sizes: frame 0 is 150×110 pixels, frame 2 is 40×30"),
    "broken picture": (broken_picture, r"the image .*1\.png is not an image"),
    "long and thin": (long_and_thin, "is 4040×20 pixels; one side may be at most 200 times the other"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake, tmp_path):
    make, words = MISTAKES[mistake]
    video = make(tmp_path)
    with pytest.raises(UserError, match=rf"^rows.jsonl:3 \(id a\): .*{words}"):
        measure_clip(video, settings_of("qwen2_5_vl"), WHERE)


def test_a_video_that_changes_its_size_is_refused(tmp_path):
    small, large = (write_video(tmp_path / f"{width}.ts", 10, size=(width, 110)) for width in (150, 300))
    both = Video(small.read_bytes() + large.read_bytes())
    settings = settings_of("qwen2_vl")
    size = measure_clip(both, settings, WHERE)
    with pytest.raises(UserError, match=r"changes its size: frame 0 is 150×110 pixels, frame .* is 300×110"):
        load_clip(both, size, settings, WHERE)
