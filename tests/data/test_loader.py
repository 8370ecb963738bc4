"""A worker that starts from a pickle makes the same rows."""

import pickle

import pytest
from transformers import AutoProcessor

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.batches.loader import EvalRows, Rows, TrainRows, only_row
from qwenvl_train.data.index.measure import MeasureOptions, lengths_of
from qwenvl_train.data.order.mixture import MixtureEntry
from qwenvl_train.data.order.order import build_order
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.samples import Samples
from qwenvl_train.families import FAMILIES
from tests.conftest import conversation
from tests.loading import assert_same
from tests.settings import run_config

COUNT = 6


@pytest.fixture
def rows(pictures, write_rows, checkpoints, tmp_path) -> Rows:
    path = write_rows(
        [
            conversation(("user", [pictures[index % 4], f"What? {index}"]), ("assistant", ["Red."]), id=str(index))
            for index in range(COUNT)
        ]
    )
    config = run_config(**{"data.cache_pictures": True})
    processor = AutoProcessor.from_pretrained(checkpoints["qwen3_vl"])
    family = FAMILIES["qwen3_vl"]
    renderer = Renderer(processor, family, config.model.video, config.data, tmp_path / "pictures")
    samples = Samples((SourceConfig(path=str(path)),), "data.train", allow_remote=False, cache=tmp_path)
    lengths = lengths_of(samples, renderer, MeasureOptions(tmp_path), lambda done: None)
    return Rows(samples, lengths, renderer)


@pytest.fixture(params=[{}, {"data.packing": True, "data.max_length": 200}, {"data.bucketing": True}], ids=str)
def train_rows(request, rows) -> TrainRows:
    groups = [MixtureEntry(0, COUNT, None, None)]
    order = build_order(rows.lengths, groups, rows.lengths.usable, run_config(**request.param), (1, 1))
    return TrainRows(rows, order, 4)


def test_training_rows_are_the_same_after_pickling(train_rows):
    train_rows.order.row(0)  # planned, as when workers start
    there = pickle.loads(pickle.dumps(train_rows))
    for index in range(len(train_rows)):
        assert_same(only_row([train_rows[index]]), only_row([there[index]]))


def test_held_out_rows_are_the_same_after_pickling(rows):
    held_out = EvalRows(rows, 2, rank=1, world=2)
    again = pickle.loads(pickle.dumps(held_out))
    for index in range(len(held_out)):
        (batch, *rest), (other, *others) = held_out[index], again[index]
        assert_same(batch, other)
        assert rest == others
