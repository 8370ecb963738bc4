"""Measured lengths: the same by however many processes, kept for the next run, bound to what they depend on."""

import os
import signal

import pytest
from PIL import Image
from transformers import AutoProcessor

from qwenvl_train.config.schema import SourceConfig
from qwenvl_train.data import index as module
from qwenvl_train.data.index import lengths_of
from qwenvl_train.data.render import Renderer
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
    return Renderer(processor, FAMILIES["qwen2_5_vl"], "test", config.model.video, config.data)


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
    lengths = lengths_of(samples_of(path, cache), renderer, cache, processes, tolerated, done.append)
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
        assert lengths.patches[place] == (0 if rendered.pairs is None else len(rendered.pairs))
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
    with pytest.raises(UserError, match="A process that measures rows was killed"):
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


def test_only_one_process_mends(pictures, write_rows, processor, tmp_path):
    late = tmp_path / "late.png"
    path = write_rows([conversation(("user", [late, "What?"]), ("assistant", ["Red."]))])
    renderer = make_renderer(processor)
    first, _ = measured(path, renderer, tmp_path)
    late.write_bytes(pictures[0].read_bytes())
    others = lengths_of(samples_of(path, tmp_path), renderer, tmp_path, 0, ALL, lambda done: None, mend=False)
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
    with pytest.raises(UserError, match=r"rows\.jsonl:1 \(id pictures\) is \d+ tokens long, data\.max_length is 50"):
        measured(path, make_renderer(processor, max_length=50), tmp_path, tolerated=frozenset({"broken"}))
    skipped, _ = measured(path, make_renderer(processor, max_length=50, too_long="skip"), tmp_path)
    assert skipped.usable.tolist() == [False, False, True]
    assert [problem.kind for problem in skipped.problems] == ["too long"] * 2
    shrunk, _ = measured(path, make_renderer(processor, max_length=50, too_long="downscale"), tmp_path)
    assert shrunk.usable.tolist() == [True, False, True]
    assert shrunk.shrunk.tolist() == [1, 0, 0]
    assert 40 < shrunk.tokens[0] <= 50
    assert "words" in shrunk.problems[0].reason


def test_a_preference_row_is_refused(write_rows, processor, tmp_path):
    path = write_rows([{"prompt": "Hi", "chosen": "Ho", "rejected": "Hu"}])
    with pytest.raises(UserError, match="is a preference row"):
        measured(path, make_renderer(processor), tmp_path, tolerated=NONE)
