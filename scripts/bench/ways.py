"""The ways from image files and text to one micro-batch that `data_path.py` compares.

Each is called with the rows of one micro-batch, and returns what its collator passes to the trainer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from qwen_vl_utils import process_vision_info
from torch.nn.utils.rnn import pad_sequence
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F
from transformers import ProcessorMixin
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from qwenvl_train.config.compose import compose
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Image, Sample, Text, Turn
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model

MODEL_TYPE = "qwen2_5_vl"
IGNORED = -100


@dataclass(frozen=True)
class Row:
    picture: str
    question: str
    answer: str


Batch = Mapping[str, Any]
Way = Callable[[list[Row]], Batch]


def ours(processor: ProcessorMixin, cache: Path | None = None) -> Way:
    """From a Sample to a Batch of this project. With `cache`, images are read from there after the first time."""
    config = compose(["+recipe=sft_lora"]).config
    data = config.data.model_copy(update={"cache_pictures": cache is not None})
    renderer = Renderer(processor, FAMILIES[MODEL_TYPE], config.model.video, data, cache)

    def run(rows: list[Row]) -> Batch:
        return collate([renderer.render(_sample(row)) for row in rows], renderer)

    return run


def _sample(row: Row) -> Sample:
    asked = Turn("user", (Image(row.picture), Text(row.question)), train=False)
    return Sample("a", "benchmark", 1, (asked, Turn("assistant", (Text(row.answer),), train=True)))


def decode_and_resize(processor: ProcessorMixin) -> Way:
    """The work that no way can avoid, as a lower bound."""
    limits = processor.image_processor.size
    factor = processor.image_processor.patch_size * processor.image_processor.merge_size

    def run(rows: list[Row]) -> Batch:
        pictures = []
        for row in rows:
            with Pillow.open(row.picture) as picture:
                pixels = F.pil_to_tensor(picture.convert("RGB"))
            size = smart_resize(*pixels.shape[1:], factor, limits["shortest_edge"], limits["longest_edge"])
            pictures.append(F.resize(pixels, list(size), InterpolationMode.BICUBIC, antialias=True))
        return {"pictures": pictures}

    return run


def trl(processor: ProcessorMixin) -> Way:
    collator = DataCollatorForVisionLanguageModeling(processor)

    def run(rows: list[Row]) -> Batch:
        # A dataset of paths opens each image when it is read. The collator decodes the pixels.
        return collator(
            [{"images": [Pillow.open(row.picture)], "messages": _messages(row, {"type": "image"})} for row in rows]
        )

    return run


def qwen_vl_utils(processor: ProcessorMixin) -> Way:
    limits = processor.image_processor.size
    as_published = {"min_pixels": limits["shortest_edge"], "max_pixels": limits["longest_edge"]}

    def run(rows: list[Row]) -> Batch:
        conversations = [_messages(row, {"type": "image", "image": row.picture, **as_published}) for row in rows]
        pictures, _ = process_vision_info(conversations)
        texts = [processor.apply_chat_template(messages, tokenize=False) for messages in conversations]
        batch = processor(text=texts, images=pictures, padding=True, return_tensors="pt")
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        return batch

    return run


def processor_and_positions(processor: ProcessorMixin) -> Way:
    """The official fine-tuning script of the models: processor and M-RoPE for each sample, then a collator."""
    tokenizer = processor.tokenizer
    opening = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    backbone = build_model(MODEL_TYPE).model

    def labels_of(ids: torch.Tensor) -> torch.Tensor:
        labels = torch.full_like(ids, IGNORED)
        tokens = ids.tolist()
        place = 0
        while place < len(tokens):
            if tokens[place : place + len(opening)] != opening:
                place += 1
                continue
            start = place + len(opening)
            place = tokens.index(end, start) + 1
            labels[start:place] = ids[start:place]
        return labels

    def one(row: Row) -> Batch:
        item = processor.apply_chat_template(
            _messages(row, {"type": "image", "image": row.picture}),
            tokenize=True,
            return_dict=True,
            processor_kwargs={"return_tensors": "pt", "return_mm_token_type_ids": True},
        )
        positions, _ = backbone.get_rope_index(item["input_ids"], item["mm_token_type_ids"], item["image_grid_thw"])
        return {**item, "labels": labels_of(item["input_ids"][0]), "position_ids": positions[:, 0]}

    def run(rows: list[Row]) -> Batch:
        items = [one(row) for row in rows]
        ids = pad_sequence([item["input_ids"][0] for item in items], True, tokenizer.pad_token_id)
        return {
            "input_ids": ids,
            "labels": pad_sequence([item["labels"] for item in items], True, IGNORED),
            "position_ids": pad_sequence([item["position_ids"].T for item in items], True).permute(2, 0, 1),
            "attention_mask": ids.ne(tokenizer.pad_token_id),
            "pixel_values": torch.cat([item["pixel_values"] for item in items]),
            "image_grid_thw": torch.cat([item["image_grid_thw"] for item in items]),
        }

    return run


def _messages(row: Row, picture: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [picture, {"type": "text", "text": row.question}]},
        {"role": "assistant", "content": [{"type": "text", "text": row.answer}]},
    ]
