"""Datasets for other trainers, against a packed row of ours and against transformers' own positions."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

import qwenvl_train
from qwenvl_train.batch import Batch
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.forward import use_packed_forward
from tests.conftest import conversation, sample_of
from tests.loading import renderer_of
from tests.videos import write_video

LOSS = 5e-7
"""Measured: 1.2e-7."""


@pytest.fixture
def rows(pictures, tmp_path) -> list[dict]:
    clip = write_video(tmp_path / "clip.mp4")
    return [
        conversation(("user", ["Which bird is this?"]), ("assistant", ["A wren."])),
        conversation(("user", [pictures[0], clip, pictures[1], "What is it?"]), ("assistant", ["A red circle."])),
        conversation(
            ("user", [pictures[2], "And this?"]), ("assistant", ["Noise."]), ("user", ["?"]), ("assistant", ["N."])
        ),
    ]  # fmt: skip


def test_a_padded_batch_costs_transformers_what_a_packed_row_costs_us(model_type, checkpoints, rows, write_rows):
    checkpoint = checkpoints[model_type]
    processor = AutoProcessor.from_pretrained(checkpoint)
    theirs, ours = (
        AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval() for _ in range(2)
    )
    use_packed_forward(ours, processor.image_processor)
    use_packed_attention(ours)
    renderer = renderer_of(processor, checkpoint)
    packed: Batch = collate([renderer.render(sample_of(row)) for row in rows], renderer)

    dataset = qwenvl_train.open_dataset(write_rows(rows), processor)
    padded = dataset.collate([dataset[index] for index in range(len(dataset))])
    assert padded["attention_mask"].sum() == packed["input_ids"].numel()
    with torch.no_grad():
        expected = -ours(**packed).log_probs.mean()
        found = theirs(**padded).loss
    assert abs(found - expected) / expected < LOSS


def test_a_batch_of_pairs_has_the_chosen_ones_first(checkpoints, pictures, write_rows):
    question = [{"type": "image", "image": str(pictures[0])}, {"type": "text", "text": "?"}]
    row = {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": "A wren."}],
        "rejected": [{"role": "assistant", "content": "A stone, or perhaps a wren."}],
    }  # fmt: skip
    processor = AutoProcessor.from_pretrained(checkpoints["qwen3_vl"])
    pairs = qwenvl_train.open_preferences(write_rows([row, row]), processor)
    batch = pairs.collate([pairs[0], pairs[1]])
    answers = [
        processor.decode(ids[labels != -100]) for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    ]
    assert answers == ["A wren.<|im_end|>"] * 2 + ["A stone, or perhaps a wren.<|im_end|>"] * 2
    assert len(batch["image_grid_thw"]) == 4


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ("nowhere.jsonl", [], "there is no file or folder nowhere.jsonl"),
        ({"path": "rows.jsonl", "repeat": 2}, [], "did you mean data.train.0.repeats"),
        ("rows.jsonl", ["data.workers=2"], "data.workers has no effect on a dataset"),
        ("rows.jsonl", ["data.max_length=5", "data.too_long=skip"], "data.too_long=skip has no effect on a dataset"),
        ("rows.jsonl", ["data.max_length=5"], "data.max_length is 5"),
        ("rows.jsonl", ["data.max_lenth=5"], "did you mean data.max_length"),
    ],
)
def test_a_mistake_is_a_user_error(data, settings, message, checkpoints, rows, write_rows, tmp_path, monkeypatch):
    write_rows(rows[:1])
    monkeypatch.chdir(tmp_path)
    processor = AutoProcessor.from_pretrained(checkpoints["qwen2_vl"])
    with pytest.raises(qwenvl_train.UserError, match=message):
        qwenvl_train.open_dataset(data, processor, settings)[0]


def test_the_config_may_be_given_where_the_processor_has_moved(checkpoints, rows, write_rows):
    processor = AutoProcessor.from_pretrained(checkpoints["qwen2_5_vl"])
    processor.tokenizer.name_or_path = "./gone"
    with pytest.raises(qwenvl_train.UserError, match=r"model.path gone does not exist"):
        qwenvl_train.open_dataset(write_rows(rows), processor)
    config = AutoConfig.from_pretrained(checkpoints["qwen2_5_vl"])
    assert len(qwenvl_train.open_dataset(write_rows(rows), processor, config=config)) == len(rows)


def test_a_pair_is_no_conversation(checkpoints):
    processor = AutoProcessor.from_pretrained(checkpoints["qwen2_vl"])
    with pytest.raises(qwenvl_train.UserError, match="is a preference row"):
        qwenvl_train.open_dataset("data/shapes/train_pairs.jsonl", processor)[0]
