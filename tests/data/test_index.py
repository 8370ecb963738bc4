"""Measured lengths do not depend on the number of processes, are stored for the next run, and depend on their
settings."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.index import measure as module
from qwenvl_train.data.index.measure import MeasureOptions, lengths_of
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from tests.conftest import conversation
from tests.settings import run_config

ALL, NONE = frozenset({"broken", "too long"}), frozenset()


@pytest.fixture
def processor(checkpoints):
    return AutoProcessor.from_pretrained(checkpoints["qwen2_5_vl"])


def make_renderer(processor, **data) -> Renderer:
    config = run_config(**{f"data.{key}": value for key, value in data.items()})
    return Renderer(processor, FAMILIES["qwen2_5_vl"], config.model.video, config.data)


@pytest.fixture
def rows(pictures, write_rows):
    return write_rows(
        [
            conversation(
                ("user", [pictures[index % 4], "What? " * (index % 5)] if index % 3 else ["Who?"]),
                ("assistant", ["Red. " * (index % 7 + 1)]),
                id=str(index),
            )
            for index in range(40)
        ]
    )


def samples_of(path, cache) -> Samples:
    return Samples((SourceConfig(path=str(path)),), "data.train", allow_remote=False, cache=cache)


def measured(path, renderer, cache, processes=0, tolerated=ALL):
    done = []
    lengths = lengths_of(samples_of(path, cache), renderer, MeasureOptions(cache, processes, tolerated), done.append)
    return lengths, done


def table(lengths) -> list:
    return lengths.table().tolist()


def test_lengths_are_those_of_the_rendered_samples(rows, processor, tmp_path):
    renderer = make_renderer(processor)
    lengths, done = measured(rows, renderer, tmp_path)
    samples = samples_of(rows, tmp_path)
    for place in range(len(samples)):
        rendered = renderer.render(samples[place])
        assert lengths.tokens[place] == rendered.layout.length
        assert lengths.supervised[place] == rendered.layout.supervised
        assert lengths.patches[place] == (0 if rendered.frame_pairs is None else len(rendered.frame_pairs))
        assert lengths.media[place] == len(samples[place].media)
    assert done[-1] == len(samples)


def test_processes_change_nothing(rows, processor, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 7)
    monkeypatch.setattr(module, "_WORTH_PROCESSES", 1)
    broken = rows.with_name("broken.jsonl")
    lines = rows.read_text().splitlines()
    lines[3], lines[30] = "{", "[]"
    broken.write_text("\n".join(lines))
    renderer = make_renderer(processor)
    alone, _ = measured(broken, renderer, tmp_path / "a", processes=0)
    together, done = measured(broken, renderer, tmp_path / "b", processes=3)
    assert table(alone) == table(together)
    assert [problem.line for problem in together.problems] == [4, 31]
    assert alone.problems == together.problems
    assert done == sorted(done)
    with pytest.raises(UserError, match=r"broken\.jsonl:4 is not valid JSON"):
        measured(broken, renderer, tmp_path / "c", processes=3, tolerated=NONE)


def test_a_process_that_dies_is_told(rows, processor, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WORTH_PROCESSES", 1)
    renderer = make_renderer(processor)
    monkeypatch.setattr(Renderer, "layout", lambda self, sample: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match="A worker that measures rows was killed"):
        measured(rows, renderer, tmp_path, processes=2)


def test_a_second_run_measures_nothing(rows, processor, tmp_path):
    first, _ = measured(rows, make_renderer(processor), tmp_path)
    again, done = measured(rows, make_renderer(processor), tmp_path)
    assert table(first) == table(again)
    assert done == []


@pytest.mark.parametrize("change", ["file", "limit", "policy", "ids"])
def test_what_lengths_depend_on_makes_them_measured_again(change, rows, processor, tmp_path):
    measured(rows, make_renderer(processor), tmp_path)
    settings = {}
    match change:
        case "file":
            os.utime(rows, (1, 1))
        case "limit":
            size = dict(processor.image_processor.size) | {"longest_edge": 56 * 56}
            processor.image_processor.size = type(processor.image_processor.size)(**size)
        case "policy":
            settings = {"max_length": 1000, "too_long": "downscale"}
        case "ids":
            settings = {"vision_ids": True}
    _, done = measured(rows, make_renderer(processor, **settings), tmp_path)
    assert done


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rest", b"\x93NUMPY"])
def test_a_damaged_file_is_measured_again(content, rows, processor, tmp_path):
    first, _ = measured(rows, make_renderer(processor), tmp_path)
    (file,) = (tmp_path / "lengths").glob("*.npz")
    file.write_bytes(content)
    again, done = measured(rows, make_renderer(processor), tmp_path)
    assert table(first) == table(again)
    assert done
    assert measured(rows, make_renderer(processor), tmp_path)[1] == []


class Killed(Exception):
    pass


@pytest.fixture
def killed(monkeypatch):
    """Measure and store a part after every chunk, until a number of rows is done."""
    monkeypatch.setattr(module, "_CHUNK", 6)

    def killed(path, renderer, cache, after):
        def progress(done):
            if done >= after:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(module, "_PART_SECONDS", 0)
            with pytest.raises(Killed):
                lengths_of(samples_of(path, cache), renderer, MeasureOptions(cache, tolerated=ALL), progress)

    return killed


def test_a_killed_start_goes_on_where_it_was(rows, processor, tmp_path, killed):
    lines = rows.read_text().splitlines()
    lines[3], lines[14], lines[30] = "{", "[]", "}"
    rows.write_text("\n".join(lines))
    renderer = make_renderer(processor)
    whole, _ = measured(rows, renderer, tmp_path / "whole")
    killed(rows, renderer, tmp_path, after=6)
    killed(rows, renderer, tmp_path, after=18)
    again, done = measured(rows, renderer, tmp_path)
    assert done == [24, 30, 36, 40]
    assert table(again) == table(whole)
    assert again.problems == whole.problems
    assert [problem.line for problem in again.problems] == [4, 15, 31]
    # The parts are removed.
    assert len(list((tmp_path / "lengths").iterdir())) == 1


@pytest.mark.parametrize(("damaged", "first"), [("0.npz", 6), ("6.npz", 12), ("12.npz", 18)])
def test_a_part_that_does_not_read_is_measured_again(damaged, first, rows, processor, tmp_path, killed):
    renderer = make_renderer(processor)
    killed(rows, renderer, tmp_path, after=18)
    (parts,) = (tmp_path / "lengths").iterdir()
    assert sorted(part.name for part in parts.iterdir()) == ["0.npz", "12.npz", "6.npz"]
    content = (parts / damaged).read_bytes()
    (parts / damaged).write_bytes(content[: len(content) // 2])
    again, done = measured(rows, renderer, tmp_path)
    assert done[0] == first
    assert table(again) == table(measured(rows, renderer, tmp_path / "whole")[0])


def test_parts_hold_for_their_own_settings_only(rows, processor, tmp_path, killed):
    killed(rows, make_renderer(processor), tmp_path, after=18)
    _, done = measured(rows, make_renderer(processor, vision_ids=True), tmp_path)
    assert done[0] == 6


def test_problems_in_parts_are_looked_at_again_and_refused(pictures, write_rows, processor, tmp_path, killed):
    late = tmp_path / "late.png"
    good, bad = (conversation(("user", [path, "What?"]), ("assistant", ["Red."])) for path in (pictures[0], late))
    path = write_rows([good, bad, *[good] * 12])
    renderer = make_renderer(processor)
    killed(path, renderer, tmp_path, after=6)
    with pytest.raises(UserError, match=r"rows\.jsonl:2 .*late\.png"):
        measured(path, renderer, tmp_path, tolerated=NONE)
    late.write_bytes(pictures[0].read_bytes())
    lengths, done = measured(path, renderer, tmp_path, tolerated=NONE)
    assert lengths.usable.all()
    assert done == [12, 14]


def test_problems_are_kept_and_still_refused_from_the_cache(rows, processor, tmp_path):
    rows.write_text(rows.read_text() + "{\n")
    renderer = make_renderer(processor)
    first, _ = measured(rows, renderer, tmp_path, tolerated=ALL)
    assert [problem.kind for problem in first.problems] == ["broken"]
    again, done = measured(rows, renderer, tmp_path, tolerated=ALL)
    assert again.problems == first.problems
    assert done == []
    with pytest.raises(UserError, match="is not valid JSON"):
        measured(rows, renderer, tmp_path, tolerated=NONE)


def test_a_row_that_was_mended_is_used_again(pictures, write_rows, processor, tmp_path):
    late = tmp_path / "late.png"
    path = write_rows([conversation(("user", [late, "What?"]), ("assistant", ["Red."]))] * 2)
    renderer = make_renderer(processor)
    assert len(measured(path, renderer, tmp_path)[0].problems) == 2
    late.write_bytes(pictures[0].read_bytes())
    lengths, done = measured(path, renderer, tmp_path)
    assert lengths.problems == ()
    assert lengths.usable.all()
    assert done == []


def test_only_one_process_measures_broken_rows_again(pictures, write_rows, processor, tmp_path):
    late = tmp_path / "late.png"
    path = write_rows([conversation(("user", [late, "What?"]), ("assistant", ["Red."]))])
    renderer = make_renderer(processor)
    first, _ = measured(path, renderer, tmp_path)
    late.write_bytes(pictures[0].read_bytes())
    options = MeasureOptions(tmp_path, tolerated=ALL, remeasure=False)
    others = lengths_of(samples_of(path, tmp_path), renderer, options, lambda done: None)
    assert others.problems == first.problems
    assert others.digest() == first.digest() != measured(path, renderer, tmp_path)[0].digest()


def test_a_cache_that_cannot_be_written_is_told(rows, processor, tmp_path):
    (tmp_path / "lengths").write_text("no folder")
    with pytest.raises(UserError, match=r"data\.cache: .*lengths cannot be written"):
        measured(rows, make_renderer(processor), tmp_path)


def test_a_long_sample_is_refused_skipped_or_shrunk(pictures, write_rows, processor, tmp_path):
    large = pictures[0].with_name("large.png")
    Image.effect_noise((400, 300), 50).save(large)
    path = write_rows(
        [
            conversation(("user", [large, large, "Which?"]), ("assistant", ["Red."]), id="pictures"),
            conversation(("user", ["word " * 90]), ("assistant", ["Red."]), id="words"),
            conversation(("user", ["Hi"]), ("assistant", ["Ho."]), id="short"),
        ]
    )
    with pytest.raises(
        UserError, match=r"rows\.jsonl:1 \(id pictures\) is \d+ tokens long, but data\.max_length is 50"
    ):
        measured(path, make_renderer(processor, max_length=50), tmp_path, tolerated=frozenset({"broken"}))
    skipped, _ = measured(path, make_renderer(processor, max_length=50, too_long="skip"), tmp_path)
    assert skipped.usable.tolist() == [False, False, True]
    assert [problem.kind for problem in skipped.problems] == ["too long"] * 2
    shrunk, _ = measured(path, make_renderer(processor, max_length=50, too_long="downscale"), tmp_path)
    assert shrunk.usable.tolist() == [True, False, True]
    assert shrunk.shrunk.tolist() == [1, 0, 0]
    assert 40 < shrunk.tokens[0] <= 50
    assert "words" in shrunk.problems[0].reason


@pytest.fixture
def many(write_rows):
    """Short, long and broken rows alternate, so that the order of problems matters."""
    rows = [
        conversation(("user", ["word " * (9 * index + 1)]), ("assistant", ["Red."]), id=f"n{index}")
        for index in range(9)
    ]
    rows[5]["messages"] = []
    return write_rows(rows)


@pytest.mark.parametrize("limits", [(None, 60), (60, None), (60, 30), (30, 60)])
def test_another_limit_measures_nothing(limits, many, processor, tmp_path):
    before, after = (make_renderer(processor, max_length=limit, too_long="skip") for limit in limits)
    measured(many, before, tmp_path)
    lengths, done = measured(many, after, tmp_path)
    assert done == []
    fresh, done = measured(many, after, tmp_path / "fresh")
    assert done
    assert table(lengths) == table(fresh)
    assert lengths.problems == fresh.problems
    assert len(lengths.problems) > (limits[1] is not None)


def test_a_limit_without_effect_on_lengths_is_not_in_their_key(processor):
    made = {
        (limit, policy): make_renderer(processor, max_length=limit, too_long=policy).fingerprint()
        for limit in (None, 100, 200)
        for policy in ("error", "skip", "downscale")
    }
    assert len(set(made.values())) == 3
    assert made[None, "error"] == made[200, "skip"] == made[None, "downscale"] != made[100, "downscale"]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("tolerated", "first"),
    [
        ({"too long"}, r"rows\.jsonl:6 "),
        ({"broken"}, r"rows\.jsonl:\d \(id n[234]\) is \d+ tokens long, but data\.max_length is 60; raise it"),
        (set(), r"rows\.jsonl:\d \(id n[234]\) is"),
    ],
    ids=str,
)
def test_the_first_problem_in_the_file_is_raised(tolerated, first, kept, many, processor, tmp_path):
    if kept:
        measured(many, make_renderer(processor), tmp_path)
    with pytest.raises(UserError, match=first):
        measured(many, make_renderer(processor, max_length=60), tmp_path, tolerated=frozenset(tolerated))


def test_problems_from_the_cache_stand_in_the_order_of_the_rows(many, processor, tmp_path):
    measured(many, make_renderer(processor), tmp_path)
    lengths, _ = measured(many, make_renderer(processor, max_length=60, too_long="skip"), tmp_path)
    lines = [problem.line for problem in lengths.problems]
    assert lines == sorted(lines) == (np.flatnonzero(~lengths.usable) + 1).tolist()
    assert [problem.kind for problem in lengths.problems if problem.line == 6] == ["broken"]
    assert {problem.kind for problem in lengths.problems if problem.line != 6} == {"too long"}
    assert (lengths.table()[:, ~lengths.usable] == 0).all()


def test_only_rows_that_are_too_long_are_read_again(many, processor, tmp_path, monkeypatch):
    measured(many, make_renderer(processor), tmp_path)
    read = []
    whole = Samples.__getitem__
    monkeypatch.setattr(Samples, "__getitem__", lambda self, index: read.append(index) or whole(self, index))
    lengths, _ = measured(many, make_renderer(processor, max_length=60, too_long="skip"), tmp_path)
    broken = [5]  # checked again in any case
    assert sorted(read) == sorted(
        broken + [problem.line - 1 for problem in lengths.problems if problem.kind != "broken"]
    )
    read.clear()
    with pytest.raises(UserError):
        measured(many, make_renderer(processor, max_length=60), tmp_path, tolerated=frozenset({"broken"}))
    assert len(read) == 2


def test_a_preference_row_is_refused(write_rows, processor, tmp_path):
    path = write_rows([{"prompt": "Hi", "chosen": "Ho", "rejected": "Hu"}])
    with pytest.raises(UserError, match="is a preference row"):
        measured(path, make_renderer(processor), tmp_path, tolerated=NONE)


@pytest.mark.parametrize("processes", [0, 2])
def test_measuring_ends_once_too_many_rows_cannot_be_used(rows, processor, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(module, "_CHUNK", 6)
    monkeypatch.setattr(module, "_WORTH_PROCESSES", 1)
    lines = rows.read_text().splitlines()
    lines[3], lines[7], lines[14], lines[30] = "{", "{", "[]", "}"
    rows.write_text("\n".join(lines))
    samples, renderer, done = samples_of(rows, tmp_path), make_renderer(processor), []
    options = MeasureOptions(tmp_path, processes, ALL)
    with pytest.raises(UserError, match=r"3 rows cannot be used, but data\.max_skipped is 2; one of them: .*:15"):
        lengths_of(samples, renderer, replace(options, max_problems=2), done.append)
    assert done == [6, 12]
    assert len(lengths_of(samples, renderer, replace(options, max_problems=4), done.append).problems) == 4
    with pytest.raises(UserError, match=r"4 rows cannot be used, but data\.max_skipped is 3"):
        lengths_of(samples, renderer, replace(options, max_problems=3), done.append)
