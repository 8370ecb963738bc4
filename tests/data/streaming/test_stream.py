"""Streams lose or repeat no row, are the same on every process, and continue in the same way from any row."""

import json
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.order.order import EpochCounts
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.sources.flows import RawRow
from qwenvl_train.data.streaming import windows as module
from qwenvl_train.data.streaming.draw import Entry, open_entries
from qwenvl_train.data.streaming.stream import Stream
from qwenvl_train.data.streaming.windows import Planner, State
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.families import FAMILIES
from tests.conftest import conversation
from tests.loading import assert_same
from tests.settings import run_config

ALL, NONE = frozenset({"broken", "too long"}), frozenset()
DEFAULTS = run_config()


def raw(id: str, tokens: int) -> dict[str, Any]:
    return conversation(("user", ["What?"]), ("assistant", ["x" * tokens]), id=id)


@dataclass
class Counting:
    """A renderer with one token per letter of the answer."""

    max_length: int | None = None
    preferences: bool = False

    def layout(self, sample: Sample) -> SimpleNamespace:
        length = len(sample.turns[-1].parts[0].text)
        return SimpleNamespace(length=length, supervised=length // 2 + 1, patches=length % 5, media=(), shrink=1)


@dataclass
class Listed:
    """Rows in memory. None is a row that cannot be read."""

    name: str
    listed: list[dict | None]
    read: list[int] = field(default_factory=list)
    folder = Path("/")

    def rows(self, place: dict | None) -> Iterator[RawRow]:
        for row in range(place["row"] if place else 0, len(self.listed)):
            self.read.append(row)
            yield RawRow(row + 1, lambda row=row: self._row(row), {"row": row + 1})

    def _row(self, row: int) -> dict:
        if self.listed[row] is None:
            raise UserError(f"{self.name}:{row + 1} is broken")
        return self.listed[row]


def entry(*files: Listed, **config: Any) -> Entry:
    locator = Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/"))
    name = files[0].name
    return Entry(f"data.train.0 ({name})", SourceConfig(path=name, **config), tuple((file, locator) for file in files))


def config_of(*, batch_size: int = 1, seed: int = 0, **data: Any) -> RunConfig:
    return DEFAULTS.model_copy(
        update={
            "seed": seed,
            "data": DEFAULTS.data.model_copy(update={"packing": False, "max_length": None} | data),
            "train": DEFAULTS.train.model_copy(update={"batch_size": batch_size}),
        }
    )


def rows_of(stream: Stream, rows: int, problems: list | None = None) -> Iterator[list[tuple[str, int]]]:
    """Return the ids and tokens that this process gets."""
    report = (lambda found: None) if problems is None else problems.extend
    loader = stream.loader(rows, workers=0, pin_memory=False, report=report)
    for row in loader.sampler:
        yield [(one.sample.id, one.tokens) for one in row]


@dataclass(frozen=True)
class Case:
    """Any stream that a run can have, with its window size."""

    entries: tuple[Entry, ...]
    config: RunConfig
    world: int
    window: int
    usable: list[list[str]]
    """The ids of each entry that can be trained on."""

    def stream(self, rank: int, state: State | None = None, row: int = 0) -> Stream:
        planner = Planner(self.entries, Counting(self.config.data.max_length), ALL, self.config, rank, self.world)
        return Stream(planner, state or State.beginning(self.entries), row)

    def rows(self, count: int) -> list[list[tuple[str, int]]]:
        """The rows of all processes, in the order of the run."""
        found = [list(rows_of(self.stream(rank), count)) for rank in range(self.world)]
        return [found[row % self.world][row // self.world] for row in range(count)]


@st.composite
def cases(draw, weighted: bool | None = None) -> Case:
    longest = draw(st.integers(1, 12))
    shares = draw(st.booleans()) if weighted is None else weighted
    entries, usable = [], []
    for number in range(draw(st.integers(1, 3))):
        ids: list[str] = []
        files = []
        for part in range(draw(st.integers(1, 2))):
            lengths = draw(st.lists(st.integers(0, longest + 1), max_size=9)) + ([1] if part == 0 else [])
            names = [f"{number}-{part}-{row}" for row in range(len(lengths))]
            listed = [raw(name, tokens) if tokens else None for name, tokens in zip(names, lengths, strict=True)]
            files.append(Listed(f"{number}-{part}.jsonl", listed))
            ids += [name for name, tokens in zip(names, lengths, strict=True) if 0 < tokens <= longest]
        weight = draw(st.sampled_from([0.2, 1.0, 2.5])) if shares else None
        entries.append(entry(*files, weight=weight))
        usable.append(ids)
    kind = draw(st.sampled_from(["packing", "bucketing", "plain"]))
    config = config_of(
        batch_size=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 2**33)),
        max_length=longest,
        max_skipped=10**9,
        packing=kind == "packing",
        bucketing=kind == "bucketing",
    )
    return Case(tuple(entries), config, draw(st.integers(1, 3)), draw(st.integers(1, 30)), usable)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Tests set the window size themselves. Otherwise the first windows would be smaller."""
    monkeypatch.setattr(module, "_SAMPLES", module._SAMPLES)
    monkeypatch.setattr(module, "_SMALL", 0)


def flat(rows: list[list[tuple[str, int]]]) -> list[str]:
    return [id for row in rows for id, _ in row]


@settings(deadline=None, max_examples=40)
@given(cases(weighted=False))
def test_a_pass_holds_every_usable_row_once(case):
    module._SAMPLES = case.window
    size = sum(map(len, case.usable))
    count = case.world * 3 * size
    ids = flat(case.rows(count))
    everything = sorted(id for ids in case.usable for id in ids)
    for start in range(0, len(ids) - size + 1, size):
        assert sorted(ids[start : start + size]) == everything
    assert len(ids) >= 3 * size


@settings(deadline=None, max_examples=40)
@given(cases(weighted=True))
def test_weights_are_the_shares_of_every_window(case):
    module._SAMPLES = case.window
    weights = [entry.config.weight or 1.0 for entry in case.entries]
    planner = Planner(case.entries, Counting(case.config.data.max_length), ALL, case.config, 0, 1)
    state = State.beginning(case.entries)
    held: Counter[str] = Counter()
    for _ in range(4):
        window = planner.window(state)
        state = window.after
        held.update(one.sample.id[0] for unit in window.units.values() for one in unit)
        for number, weight in enumerate(weights):
            share = state.samples * weight / sum(weights)
            assert abs(held[str(number)] - share) <= len(weights) / 2


@settings(deadline=None, max_examples=40)
@given(cases())
def test_rows_are_full_and_packs_fit(case):
    module._SAMPLES = case.window
    size, room = case.config.train.batch_size, case.config.data.max_length
    for row in case.rows(case.world * 9):
        assert case.config.data.packing or len(row) == size
        assert sum(tokens for _, tokens in row) <= size * room


@settings(deadline=None, max_examples=40)
@given(cases(), st.integers(0, 8))
def test_from_any_row_on_the_same_rows_follow(case, steps):
    """The state goes through JSON, as in a checkpoint, and each process has planned a different distance ahead."""
    module._SAMPLES = case.window
    count, done = case.world * 9, case.world * steps
    expected = case.rows(count)
    for rank in range(case.world):
        stream = case.stream(rank)
        rows = rows_of(stream, count)
        for _ in range(min(9, steps + rank)):
            next(rows)
        state = State.of(json.loads(json.dumps(stream.state(done).as_dict())))
        again = case.stream(rank, state, done)
        assert again.seen(done) == stream.seen(done)
        assert list(rows_of(again, count)) == expected[done + rank :: case.world]
        list(rows)
        assert again.seen(count) == stream.seen(count)
        assert again.state(count) == stream.state(count) == case_state(case, count)


def case_state(case: Case, rows: int) -> State:
    """Return the state of the first process after one uninterrupted reading."""
    stream = case.stream(0)
    list(rows_of(stream, rows))
    return stream.state(rows)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_what_was_seen_is_what_the_rows_held(case):
    module._SAMPLES = case.window
    stream = case.stream(0)
    rows = case.rows(case.world * 6)
    list(rows_of(stream, len(rows)))
    for steps in range(7):
        held = [one for row in rows[: steps * case.world] for one in row]
        seen = stream.seen(steps * case.world)
        tokens = [tokens for _, tokens in held]
        assert (seen.samples, seen.tokens, seen.supervised) == (
            len(held),
            sum(tokens),
            sum(length // 2 + 1 for length in tokens),
        )


@settings(deadline=None, max_examples=40)
@given(cases(), st.integers(2, 4))
def test_a_plain_order_does_not_depend_on_how_it_is_cut(case, world):
    module._SAMPLES = case.window
    plain = {"packing": False, "bucketing": False}
    one = Case(case.entries, config_of(max_length=12, max_skipped=10**9, **plain), 1, 0, [])
    many = Case(case.entries, config_of(batch_size=3, max_length=12, max_skipped=10**9, **plain), world, 0, [])
    assert flat(one.rows(world * 12)) == flat(many.rows(world * 4))


def test_seed_window_and_pass_shuffle():
    module_rows = [raw(str(index), 1) for index in range(40)]

    def ids(seed: int) -> list[str]:
        case = Case((entry(Listed("a.jsonl", module_rows)),), config_of(seed=seed), 1, 0, [])
        return flat(case.rows(80))

    first, other = ids(1), ids(2)
    assert first != other
    assert first[:40] != first[40:]
    assert first[:40] != sorted(first[:40], key=int)


def test_what_runs_at_the_same_time_costs_alike_in_every_window():
    """A window need not begin at the start of a micro-step."""
    module._SAMPLES = 101
    source = Listed("a.jsonl", [raw(str(row), 9 if row * 7 % 13 < 6 else 1) for row in range(404)])
    case = Case((entry(source),), config_of(bucketing=True), 2, 0, [])
    costs = [row[0][1] for row in case.rows(404)]
    uneven = sum(one != other for one, other in zip(costs[::2], costs[1::2], strict=True))
    assert uneven <= 4 + 4  # one in each window and at each boundary


def test_a_window_is_the_same_whenever_it_is_asked_for():
    module._SAMPLES = 3
    source = Listed("a.jsonl", [raw(str(row), row + 1) for row in range(8)])
    planner = Planner((entry(source),), Counting(), NONE, config_of(), 0, 1)
    first = planner.window(State.beginning(planner.entries))
    second = planner.window(first.after)
    assert planner.window(first.start).units == first.units
    assert planner.window(second.start).units == second.units != first.units


def test_samples_are_let_go_as_they_are_trained_on():
    module._SAMPLES = 4
    source = Listed("a.jsonl", [raw(str(row), row + 1) for row in range(8)])
    planner = Planner((entry(source),), Counting(), NONE, config_of(), 0, 1)
    stream = Stream(planner, State.beginning(planner.entries), 0)
    rows = iter(stream.loader(8, 0, pin_memory=False, report=lambda found: None).sampler)
    held = [weakref.ref(one.sample) for _ in range(3) for one in next(rows)]
    assert [sample() for sample in held] == [None, None, None]
    assert sorted(stream.first.tokens) == [1, 2, 3, 4]


def test_windows_grow_so_that_the_first_batch_comes_soon(monkeypatch):
    monkeypatch.undo()
    source = Listed("a.jsonl", [raw(str(index), 1) for index in range(20_000)])
    planner = Planner((entry(source),), Counting(), NONE, config_of(), 0, 1)
    stream = Stream(planner, State.beginning(planner.entries), 0)
    assert max(source.read) < 600
    assert len(stream.first.tokens) == 512
    sizes, state = [], State.beginning(planner.entries)
    for _ in range(6):
        window = planner.window(state)
        state = window.after
        sizes.append(len(window.tokens))
    assert sizes == [512, 1024, 2048, 4096, 4096, 4096]


def test_packs_of_short_samples_are_full_nevertheless(monkeypatch):
    monkeypatch.undo()
    source = Listed("a.jsonl", [raw(str(index), 20 + index % 90) for index in range(30_000)])
    planner = Planner((entry(source),), Counting(8192), NONE, config_of(packing=True, max_length=8192), 0, 1)
    state = State.beginning(planner.entries)
    for _ in range(4):
        window = planner.window(state)
        state = window.after
    assert int(window.tokens.sum()) / (8192 * len(window.units)) > 0.98


def test_media_in_the_rows_bound_a_window(monkeypatch):
    monkeypatch.setattr(module, "_SAMPLES", 1000)
    monkeypatch.setattr(module, "_BYTES", 1000)
    part = {"type": "image", "image": {"bytes": b"x" * 400}}
    row = {"messages": [{"role": "user", "content": [part]}, {"role": "assistant", "content": "Red."}]}
    planner = Planner((entry(Listed("a.parquet", [row] * 10)),), Counting(), NONE, config_of(), 0, 1)
    assert len(planner.window(State.beginning(planner.entries)).tokens) == 3


MIXED = [None, raw("a", 3), raw("long", 50), {"text": "?"}, raw("b", 4)]


@pytest.mark.parametrize(
    ("tolerated", "reason"),
    [
        (NONE, "a.jsonl:1 is broken"),
        (frozenset({"broken"}), r"a.jsonl:3 \(id long\) is 50 tokens long"),
        (frozenset({"too long"}), "a.jsonl:1 is broken"),
    ],
)
def test_a_row_that_is_not_tolerated_ends_the_run(tolerated, reason):
    planner = Planner((entry(Listed("a.jsonl", MIXED)),), Counting(10), tolerated, config_of(max_length=10), 0, 1)
    with pytest.raises(UserError, match=reason):
        Stream(planner, State.beginning(planner.entries), 0)


def test_rows_that_are_left_out_are_told_once_in_a_pass():
    module._SAMPLES = 100
    planner = Planner((entry(Listed("a.jsonl", MIXED)),), Counting(10), ALL, config_of(max_length=10), 0, 1)
    stream = Stream(planner, State.beginning(planner.entries), 0)
    first = [(problem.source, problem.line, problem.kind) for problem in stream.first.problems]
    assert first == [("a.jsonl", 1, "broken"), ("a.jsonl", 3, "too long"), ("a.jsonl", 4, "broken")]
    told: list = []
    assert sorted(flat(list(rows_of(stream, 4, told)))) == ["a", "a", "b", "b"]
    assert told == list(stream.first.problems)


@pytest.mark.parametrize("weight", [None, 1.0])
@pytest.mark.parametrize(("rows", "reason"), [([], "has no rows"), ([None, None], "none of its rows can be used")])
def test_an_entry_of_no_use_is_named(rows, reason, weight):
    entries = (entry(Listed("a.jsonl", MIXED), weight=weight), entry(Listed("b.jsonl", rows), weight=weight))
    planner = Planner(entries, Counting(), ALL, config_of(), 0, 1)
    with pytest.raises(UserError, match=rf"\(b\.jsonl\)[ :]+{reason}"):
        planner.window(State.beginning(entries))


def test_more_skipped_rows_than_allowed_end_the_search(monkeypatch):
    source = Listed("a.jsonl", [None] * 10_000)
    planner = Planner((entry(source),), Counting(), ALL, config_of(max_skipped=20), 0, 1)
    window = planner.window(State.beginning(planner.entries))
    assert len(window.problems) == 21
    assert len(source.read) < 30


def test_the_first_row_tells_the_format_of_a_file_also_after_a_resume():
    other = {"query": "What?", "response": "xx"}
    source = Listed("a.jsonl", [None, raw("a", 1), raw("b", 1), other])
    next_file = Listed("b.jsonl", [other])
    planner = Planner((entry(source, next_file),), Counting(), ALL, config_of(), 0, 1)
    module._SAMPLES = 2
    start = State.beginning(planner.entries)
    after = planner.window(start).after
    assert after.entries[0].format == "messages"
    for fresh in (planner, Planner(planner.entries, Counting(), ALL, config_of(), 0, 1)):
        module._SAMPLES = 1
        window = fresh.window(after)
        assert "which the format messages needs" in window.problems[0].reason
        assert window.after.entries[0].format == "query_response"


def test_a_stream_stays_at_its_commit(tmp_path):
    source = Listed("org/name", [raw("a", 1)])
    planner = Planner((entry(source, revision="a" * 40),), Counting(), NONE, config_of(), 0, 1)
    after = planner.window(planner.window(State.beginning(planner.entries)).after).after
    assert (after.passes, after.revisions) == (2, ("a" * 40,))
    data = config_of(train=(SourceConfig(path="org/name", revision="main"),)).data
    (again,) = open_entries(data, tmp_path, after.revisions)
    assert again.config.revision == again.files[0][0].config.revision == "a" * 40


def test_a_format_can_be_forced():
    source = Listed("a.jsonl", [raw("a", 1)])
    planner = Planner((entry(source, format="llava"),), Counting(), NONE, config_of(), 0, 1)
    with pytest.raises(UserError, match="which the format llava needs"):
        planner.window(State.beginning(planner.entries))


# These tests use the real renderer, real files and workers.


@pytest.fixture(scope="module")
def renderer(checkpoints) -> Renderer:
    processor = AutoProcessor.from_pretrained(checkpoints["qwen2_5_vl"])
    return Renderer(processor, FAMILIES["qwen2_5_vl"], DEFAULTS.model.video, DEFAULTS.data)


@pytest.fixture
def table(pictures, tmp_path) -> Path:
    """A table with images in its rows, some of which cannot be decoded."""
    path = tmp_path / "rows.parquet"
    contents = [pictures[index % 4].read_bytes() for index in range(20)]
    contents[7] = contents[7][: len(contents[7]) // 2]
    rows = [
        {
            "id": str(index),
            "messages": [{"role": "user", "content": "<image> What?"}, {"role": "assistant", "content": "Red."}],
            "images": [{"bytes": content, "path": None}],
        }
        for index, content in enumerate(contents)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=6)
    return path


def stream_of(path: Path, renderer: Renderer, tmp_path: Path, tolerated: frozenset = NONE, **data: Any) -> Stream:
    config = config_of(batch_size=2, train=(SourceConfig(path=str(path)),), **data)
    entries = open_entries(config.data, tmp_path / "cache")
    return Stream(Planner(entries, renderer, tolerated, config, 0, 1), State.beginning(entries), 0)


def batches(stream: Stream, rows: int, workers: int, told: list | None = None) -> list[dict]:
    report = (lambda found: None) if told is None else told.extend
    return list(stream.loader(rows, workers, pin_memory=False, report=report))


def test_workers_change_nothing_and_the_global_generator_does_not_notice(table, renderer, tmp_path):
    module._SAMPLES = 6
    before = torch.get_rng_state()
    here = batches(stream_of(table, renderer, tmp_path), 12, workers=0)
    there = batches(stream_of(table, renderer, tmp_path), 12, workers=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(here) == len(there) == 12
    for mine, theirs in zip(here, there, strict=True):
        assert_same(mine, theirs)


def test_a_streamed_row_is_rendered_as_an_indexed_one(table, renderer, tmp_path):
    samples = Samples((SourceConfig(path=str(table)),), "data.train", allow_remote=False, cache=tmp_path / "cache")
    module._SAMPLES = 6
    stream = stream_of(table, renderer, tmp_path)
    (row,) = list(stream.loader(1, 0, pin_memory=False, report=lambda found: None).sampler)
    rendered = [renderer.render(samples[one.sample.line - 1]) for one in row]
    (batch,) = batches(stream_of(table, renderer, tmp_path), 1, workers=0)
    assert batch["input_ids"][0].tolist() == [token for one in rendered for token in one.layout.input_ids]
    assert torch.equal(batch["planes"], torch.cat([torch.from_numpy(one.planes) for one in rendered]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_does_not_decode_is_named_and_left_out(table, renderer, tmp_path, workers):
    given = batches(stream_of(table, renderer, tmp_path), 10, workers)
    (problem,) = [problem for batch in given for problem in batch["problems"]]
    assert (problem.source, problem.line) == (str(table), 8)
    assert problem.reason.startswith(f"{table}:8 (id 7): the image")
    assert sum(len(batch["contents"].lengths) for batch in given) == 19


def failure(batches: Iterator[dict]) -> str:
    """Return the message and drop the error, which would keep the loader's processes waiting."""
    try:
        for _ in batches:
            pass
    except UserError as error:
        return message_of(error)
    return "none"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_row_far_behind_is_named_when_its_window_comes(pictures, renderer, write_rows, tmp_path, workers):
    module._SAMPLES = 6
    good = conversation(("user", [pictures[0]]), ("assistant", ["Red."]))
    path = write_rows([good] * 20)
    with path.open("a") as file:
        file.write("{\n" + json.dumps(good) + "\n")
    loaded = iter(stream_of(path, renderer, tmp_path).loader(100, workers, False, report=lambda found: None))
    assert [next(loaded)["input_ids"].shape[0] for _ in range(3)] == [1, 1, 1]
    assert failure(loaded).startswith(f"{path}:21 is not valid JSON")
    told: list = []
    assert len(batches(stream_of(path, renderer, tmp_path, ALL), 21, workers, told)) == 21
    assert [problem.line for problem in told] == [21, 21]


def test_what_is_streamed_is_told(table, pictures, renderer, write_rows, tmp_path):
    rows = write_rows([conversation(("user", [pictures[0]]), ("assistant", ["Red."]))], "more.jsonl")
    config = config_of(train=tuple(SourceConfig(path=str(path)) for path in (tmp_path, table)))
    entries = open_entries(config.data, tmp_path / "cache")
    stream = Stream(Planner(entries, renderer, ALL, config, 0, 1), State.beginning(entries), 0)
    assert stream.describe() == [
        f"{tmp_path}: streamed from 2 files, messages: rows have 'messages' with 'role' and 'content'",
        f"{table}: streamed, messages: rows have 'messages' with 'role' and 'content'",
    ]
    assert entries[0].size() == rows.stat().st_size + table.stat().st_size
    assert stream.seen(0) == EpochCounts(0, 0, 0, 0.0)
