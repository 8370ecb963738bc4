"""The rules on pictures, and what they know of a picture."""

from dataclasses import replace

import imagehash
import numpy as np
import pytest
from PIL import Image as Pillow

from qwenvl_train.curation import pictures as reading
from qwenvl_train.curation.pictures import as_facts
from qwenvl_train.curation.view import RowView
from qwenvl_train.data.sample import Image, Video
from tests.curation.clean_rows import drawn, row
from tests.curation.judging import judged


def of_frames(*paths):
    sample = row("What happens?", "Nothing.", None)
    clip = Video(tuple(map(str, paths)))
    return replace(sample, turns=(replace(sample.turns[0], parts=(clip, *sample.turns[0].parts)), sample.turns[1]))


def flat(path, colour=(200, 30, 30), size=(64, 48)):
    Pillow.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def whole(tmp_path, rng):
    return drawn(tmp_path / "whole.png", rng)


@pytest.fixture
def broken(tmp_path, whole):
    made = {"cut.png": whole.read_bytes()[:-200], "text.png": b"<html>", "empty.png": b""}
    Pillow.open(whole).save(tmp_path / "whole.jpg")
    made["cut.jpg"] = (tmp_path / "whole.jpg").read_bytes()[:-400]
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    return [*(tmp_path / name for name in made), tmp_path / "none.png", tmp_path]


def test_unreadable_images_fall(whole, broken):
    assert not judged("unreadable_images", row("What?", "This.", whole)).falls
    assert judged("unreadable_images", row("What?", "This.", None)) is None
    for path in broken:
        verdict = judged("unreadable_images", row("What?", "This.", path))
        assert verdict.falls, path
        assert verdict.evidence.startswith(f"the image {path}")
        assert judged("unreadable_images", of_frames(whole, path)).falls
        assert judged("blank_images", row("What?", "This.", path)) is None
    assert not judged("unreadable_images", of_frames(whole, whole)).falls


def test_a_cut_picture_has_a_size_but_no_hash(broken):
    facts = RowView(row("What?", "This.", broken[0])).pictures[0]
    assert facts.size == (120, 160)
    assert facts.hash is None
    assert facts.thumbnail is None


def test_blank_images_fall(tmp_path, whole):
    noise = Pillow.effect_noise((320, 240), 3).convert("RGB")
    noise.save(tmp_path / "noise.jpg")
    page = Pillow.new("RGB", (1000, 1000), "white")
    page.paste((60, 60, 60), (100, 100, 300, 112))
    page.save(tmp_path / "page.png")
    equal_in_grey = Pillow.new("RGB", (64, 64), (150, 0, 0))
    equal_in_grey.paste((0, 77, 0), (16, 16, 48, 48))
    equal_in_grey.save(tmp_path / "colours.png")
    for path in (flat(tmp_path / "flat.png"), tmp_path / "noise.jpg"):
        assert judged("blank_images", row("What?", "This.", path)).falls, path
    for path in (whole, tmp_path / "page.png", tmp_path / "colours.png"):
        verdict = judged("blank_images", row("What?", "This.", path))
        assert not verdict.falls, path
        assert verdict.value > 2
    assert not judged("blank_images", of_frames(tmp_path / "flat.png", whole)).falls
    assert judged("blank_images", of_frames(tmp_path / "flat.png", tmp_path / "flat.png")).falls


@pytest.mark.parametrize(
    ("size", "is_wrong"),
    [((28, 28), False), ((27, 100), True), ((8192, 500), False), ((8193, 500), True), ((40, 801), True)],
)
def test_sizes_are_limited(tmp_path, size, is_wrong):
    verdict = judged("image_size", row("What?", "This.", flat(tmp_path / "a.png", size=size)))
    assert verdict.falls == is_wrong
    assert verdict.value == min(size)
    assert judged("image_size", of_frames(tmp_path / "a.png")).falls == is_wrong


def test_sizes_are_upright(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert as_facts([Image(str(tmp_path / "a.jpg"))], "row")[0].size == (60, 40)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_the_hash_is_that_of_imagehash(tmp_path, rng, mode):
    picture = Pillow.open(drawn(tmp_path / "a.png", rng, (333, 217))).convert(mode)
    picture.save(tmp_path / "b.png")
    facts = as_facts([Image(str(tmp_path / "b.png"))], "row")[0]
    assert f"{facts.hash:016x}" == str(imagehash.phash(picture.convert("RGB")))
    assert facts.thumbnail.shape == (32, 32)
    assert facts.thumbnail.dtype == np.uint8


def test_a_picture_is_decoded_once_and_only_if_asked(whole, monkeypatch):
    decoded = []
    load = reading.load_picture
    monkeypatch.setattr(reading, "load_picture", lambda *given: (decoded.append(given), load(*given))[1])
    view = RowView(row("What?", "This.", whole))
    assert view.pictures[0].size == (120, 160)
    assert not decoded
    assert (view.pictures[0].problem, view.pictures[0].deviation > 2, view.pictures[0].hash > 0) == ("", True, True)
    assert len(decoded) == 1


def test_clips_in_files_are_not_judged():
    sample = of_frames("a.png")
    clip = replace(sample.turns[0].parts[0], content="clip.mp4")
    sample = replace(sample, turns=(replace(sample.turns[0], parts=(clip,)), sample.turns[1]))
    for rule in ("unreadable_images", "blank_images", "image_size"):
        assert judged(rule, sample) is None
