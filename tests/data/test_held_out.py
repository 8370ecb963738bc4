"""Held-out samples: chosen by a share of data.train, and compared with what is trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenvl_train.data.held_out.contents import MediaFiles, SampleContent
from qwenvl_train.data.held_out.overlap import Overlap, overlap
from qwenvl_train.data.held_out.split import groups_of, held_out
from qwenvl_train.data.sample import Episode, Image, Limits, Sample, Text, Turn, Video

NO_LIMITS = Limits()


def sample(text: str, *media: str | bytes | tuple, line: int = 1, limits: Limits = NO_LIMITS) -> Sample:
    files = [Video(it) if isinstance(it, tuple) else Image(it, limits) for it in media]
    turns = (Turn("user", (*files, Text(text)), False), Turn("assistant", (Text("Yes."),), True))
    return Sample(f"id {line}", "rows.jsonl", line, turns)


@pytest.fixture
def files(tmp_path):
    """Paths of files: two are equal, one differs at its end alone, one has another size."""
    contents = {"a": b"a" * 5000, "copy": b"a" * 5000, "end": b"a" * 4999 + b"b", "long": b"a" * 5001}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: str(tmp_path / name) for name in contents}


def read(*samples: Sample) -> tuple[list[SampleContent], MediaFiles]:
    media = MediaFiles()
    return [media.content_of(one) for one in samples], media


def test_files_are_equal_if_their_bytes_are(files):
    inline = Path(files["copy"]).read_bytes()
    contents, media = read(*(sample("", file) for file in (*files.values(), inline, files["a"])))
    numbers = [content.media[0] for content in contents]
    assert numbers == [0, 1, 2, 3, 4, 0]
    assert media.equal_to(numbers) == [0, 0, 2, 3, 0]


def test_only_files_that_could_be_equal_are_read(files, monkeypatch):
    opened = []
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *rest: opened.append(path) or real(path, *rest))
    (content, _, _), media = read(*(sample("", files[name]) for name in ("long", "a", "copy")))
    assert media.equal_to(content.media) == [0, 1, 2]
    assert not opened


def test_a_file_that_is_gone_equals_no_other():
    _, media = read(sample("", "/gone/1.png"), sample("", "/gone/2.png"))
    assert media.equal_to(range(2)) == [0, 1]


def test_samples_that_share_media_are_one_group(files):
    samples = [
        sample("1", files["a"]),
        sample("2", files["long"]),
        sample("3", files["copy"]),
        sample("4", (files["end"], files["long"])),
        sample("5"),
        sample("6"),
        sample("5", line=9),
    ]
    contents, media = read(*samples)
    assert groups_of(contents, media.equal_to(range(4))).tolist() == [0, 1, 0, 1, 4, 5, 4]


def test_steps_of_an_episode_are_one_group():
    steps = [replace(sample("next", bytes([n])), episode=Episode(id, 2)) for n, id in enumerate("abab")]
    steps.append(replace(sample("next", b"x"), episode=Episode("a", 2), source="other.jsonl"))
    contents, media = read(*steps)
    assert groups_of(contents, media.equal_to(media.numbers())).tolist() == [0, 1, 0, 1, 4]


def test_samples_with_other_thoughts_are_not_equal():
    plain = sample("5")
    thoughtful = replace(plain, turns=(plain.turns[0], replace(plain.turns[1], thoughts="It is small.")))
    contents, media = read(plain, thoughtful, plain)
    assert groups_of(contents, media.equal_to(())).tolist() == [0, 1, 0]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.sampled_from([0.05, 0.2, 0.5]), st.integers(0, 9))
def test_whole_groups_are_held_out_near_the_share(groups, share, seed):
    groups = np.array(groups)
    chosen = held_out(groups, share, seed)
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert (chosen == held_out(groups, share, seed)).all()
    # No group that is left would bring the number nearer.
    missing = share * len(groups) - chosen.sum()
    left = np.unique(groups[~chosen], return_counts=True)[1]
    assert missing <= left.min(initial=10**6) / 2


def test_the_seed_decides_and_the_share_is_kept_without_media():
    groups = np.arange(1000)
    one, other = held_out(groups, 0.05, 1), held_out(groups, 0.05, 2)
    assert one.sum() == other.sum() == 50
    assert (one != other).any()


def test_what_is_on_both_sides_is_counted(files):
    train = [sample("What?", files["a"]), sample("Who?"), sample("Where?", files["end"])]
    evaluated = [
        sample("What?", files["copy"], line=7),
        sample("What?", files["copy"], limits=Limits(max_pixels=9)),
        sample("Who?", line=8),
        sample("When?"),
        sample("Where?", files["long"]),
    ]
    contents, media = read(*train, *evaluated)
    same = media.equal_to(number for content in contents[3:] for number in content.media)
    assert overlap(contents[:3], contents[3:], same) == Overlap(samples=2, of_samples=5, media=1, of_media=2)
