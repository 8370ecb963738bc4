"""The rows of answers, and what happens on a device that is too small."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from transformers import AutoProcessor

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.index.measure import MeasureOptions, lengths_of
from qwenvl_train.data.samples import Samples
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.answering import answers_to, fitting_batch_size, groups_of, samples_to_answer
from qwenvl_train.evaluation.generation import Answer, RequestRow
from tests.conftest import conversation
from tests.loading import renderer_of


@pytest.fixture
def held_out(checkpoints, write_rows, tmp_path) -> Rows:
    PartialState()
    files = [
        write_rows(
            [conversation(("user", [f"{name} {number}?"]), ("assistant", ["Red."])) for number in range(4)], name
        )
        for name in ("a.jsonl", "b.jsonl")
    ]
    renderer = renderer_of(AutoProcessor.from_pretrained(checkpoints["qwen2_vl"]), checkpoints["qwen2_vl"])
    samples = Samples(tuple(SourceConfig(path=str(file)) for file in files), "data.eval", False, tmp_path)
    return Rows(samples, lengths_of(samples, renderer, MeasureOptions(tmp_path), lambda done: None), renderer)


class SmallDevice:
    """Answers at most `room` samples at a time, each with its own question."""

    def __init__(self, room: int, tokenizer):
        self.room, self.tokenizer, self.answered = room, tokenizer, []

    def __call__(self, row: RequestRow) -> list[Answer]:
        if len(row.requests) > self.room:
            raise torch.OutOfMemoryError
        self.answered.append(len(row.requests))
        return [Answer(request, request.text, 1, True, (), ()) for request in row.requests]


def test_a_device_without_room_answers_in_halves(held_out, checkpoints):
    tokenizer = AutoProcessor.from_pretrained(checkpoints["qwen2_vl"]).tokenizer
    groups = groups_of(held_out, samples_to_answer(held_out, None, 0), size=7)
    device = SmallDevice(2, tokenizer)
    rows = [row for answers, _ in answers_to(held_out, groups, device, 0) for row in answers]
    assert device.answered == [1, 2, 2, 2, 1]
    assert sorted(row["index"] for row in rows) == list(range(8))
    names = ["a.jsonl", "b.jsonl"]
    for row in rows:
        assert row["answer"] == row["prompt"] == f"{names[row['index'] // 4]} {row['index'] % 4}?"
        assert (row["entry"], row["line"], row["turns"]) == (names[row["index"] // 4], row["index"] % 4 + 1, 1)
    with pytest.raises(UserError, match=r"a\.jsonl:1 \(id a\): the device has no room to answer this sample; lower"):
        list(answers_to(held_out, [[0, 1]], SmallDevice(0, tokenizer), 0))


def test_a_few_samples_are_spread_over_the_files(held_out):
    assert samples_to_answer(held_out, None, 0) == list(range(8))
    few = samples_to_answer(held_out, 4, 0)
    assert [index // 4 for index in few] == [0, 0, 1, 1]
    assert few == samples_to_answer(held_out, 4, 0)


def test_the_batch_size_follows_from_the_free_memory():
    text = SimpleNamespace(num_hidden_layers=28, num_key_value_heads=4, hidden_size=3584, num_attention_heads=28)
    model = SimpleNamespace(config=SimpleNamespace(text_config=text), dtype=torch.bfloat16)
    # A token of Qwen2.5-VL 7B takes 2 · 28 · 4 · 128 · 2 bytes, so 1,024 of them take 56 MiB.
    assert fitting_batch_size(model, 1024, 560 * 2**20) == 6
    assert fitting_batch_size(model, 1024, 2**20) == 1
    assert fitting_batch_size(model, 1024, 2**40) == 128
    assert fitting_batch_size(model, 1024, None) == 32
