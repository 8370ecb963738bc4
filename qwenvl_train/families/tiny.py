"""Tiny models of every family with a small vocabulary of their own, used as the built-in default and in tests."""

import copy
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5MoeConfig,
    Qwen3_5Tokenizer,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny_template import chat_template

ADDED_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
"""The published added tokens, in the published order."""

ADDED_WORDS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
"""The words that the published vocabularies since Qwen3 have as added tokens that are not special."""

LEARNED_MERGES = 352

CORPUS = """\
You are a helpful assistant. You answer questions about pictures and videos.
system user assistant
What is it? What is this? What is in the picture? What do you see? It is a red circle. It is a blue square.
What colour is it? What color is it? Which colour does it have? red green blue yellow purple orange
It is red. It is green. It is blue. It is yellow. It is purple. It is orange. black white grey
What shape is it? Which shape is this? Which shape does it have? circle square triangle ring cross
a red circle a green square a blue triangle a yellow ring a purple cross an orange circle
a red square a green triangle a blue ring a yellow cross a purple circle an orange square
a red triangle a green ring a blue cross a yellow circle a purple square an orange triangle
Is it a circle? Is it a square? Is it a triangle? Is it a ring? Is it a cross? Is it red? Is it blue? yes no
Yes, it is. No, it is not. yes no yes no true false
Which bin does this part go to? Where does this part go? Into which bin? The part goes to bin A1.
bin A1 bin A2 bin A3 bin A4 bin A5 bin B1 bin B2 bin B3 bin B4 bin B5 bin C1 bin C2 bin C3 bin C4 bin C5
bin D1 bin D2 bin D3 bin D4 bin D5 bin E1 bin E2 bin E3 bin E4 bin E5 bin F1 bin F2 bin F3 bin F4 bin F5
How many pictures are there? one two three four five six seven eight nine ten
Is the first picture the same as the second picture? Are the two the same? They are different. Compare them.
Describe the picture. Describe the video. The picture shows a large red circle on a white background.
The video shows a small blue square that moves to the left, then to the right, then up, then down.
Where is it? It is in the middle. It is at the top. It is at the bottom. left right up down near far
What happens first? What happens next? What happens at the end? When does it start? It starts after 2.0 seconds.
Read the text. What does the sign say? What is the total? What time is it? Who is this? Why? I do not know.
Find the object and give its box. The box is {"bbox_2d": [10, 20, 30, 40], "label": "circle"}.
Please answer with one word. Please answer in short. Please think step by step. Thank you.
"""
"""The text from which the merges of the vocabulary are learned. Other text is split into shorter parts or bytes."""

VISION_2_5 = {
    "initializer_range": 0.05,
    "depth": 4,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_heads": 4,
    "window_size": 56,
    "fullatt_block_indexes": [1, 3],
}
"""Sizes of a tiny Qwen2.5-VL vision tower. A window of 56 pixels is 2×2 visual tokens, so that even an 84×84 picture
has four windows, three of them cut."""

VISION_2 = {"depth": 2, "embed_dim": 64, "num_heads": 4, "mlp_ratio": 2}

VISION_3 = {
    "depth": 3,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 4,
    "num_position_embeddings": 36,
    "deepstack_visual_indexes": [0, 1],
}
"""Sizes of a tiny Qwen3-VL vision tower. Its 6×6 grid of learned positions is smaller than the grids of most pictures,
so that positions are interpolated."""

TEXT_2_5 = {
    "initializer_range": 0.05,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

TEXT_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    "num_hidden_layers": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
"""The layers of a tiny Qwen3.5. Heads of keys and of values differ in number and in width."""

SHARED_EXPERT = {"shared_expert_intermediate_size": 48}

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1}

ROPE_2_5 = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [4, 6, 6]}
ROPE_2 = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [2, 3, 3]}
ROPE_3 = {**ROPE_2, "rope_theta": 5_000_000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
ROPE_3_5 = {**ROPE_3, "rope_theta": 10_000_000.0, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
"""Rotary embeddings of a tiny Qwen3-VL, and of a tiny Qwen3.5, which rotates a part of each head. In each family, the
sections for temporal, height and width positions add up to half of the width that is rotated."""


@cache
def _learned_vocabulary(text: str, merges: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a vocabulary with all 256 bytes, so that every text can be encoded, and merges learned from a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    blank = Qwen2Tokenizer(vocab={symbol: index for index, symbol in enumerate(alphabet)}).backend_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + merges, initial_alphabet=alphabet, show_progress=False)
    opening_words = text.split()
    blank.train_from_iterator(text.splitlines() + opening_words, trainer)
    learned = json.loads(blank.to_str())["model"]
    return learned["vocab"], [(left, right) for left, right in learned["merges"]]


def build_tokenizer(
    model_type: str = "qwen2_5_vl", text: str = CORPUS, merges: int = LEARNED_MERGES
) -> Qwen2Tokenizer | Qwen3_5Tokenizer:
    """Return a tokenizer with Qwen's splitting and added tokens, and a small vocabulary to keep embeddings small."""
    vocab, learned = _learned_vocabulary(text, merges)
    newer = model_type.startswith("qwen3_5")
    tokens = [(token, True) for token in ADDED_TOKENS] + [(word, False) for word in ADDED_WORDS if newer]
    added = {
        len(vocab) + index: AddedToken(token, special=special, normalized=False)
        for index, (token, special) in enumerate(tokens)
    }
    return (Qwen3_5Tokenizer if newer else Qwen2Tokenizer)(
        vocab=dict(vocab),
        merges=list(learned),
        added_tokens_decoder=added,
        extra_special_tokens=ADDED_TOKENS[1:],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        model_max_length=32768,
    )


def build_processor(model_type: str, text: str = CORPUS, merges: int = LEARNED_MERGES) -> ProcessorMixin:
    """Return a processor of the family's class, with limits that keep a picture to a few visual tokens.

    Args:
        text, merges: What the vocabulary is learned from, and how many merges are.
    """
    match model_type:
        case "qwen2_vl" | "qwen2_5_vl":
            limits = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
            images = Qwen2VLImageProcessor(size=limits)
            videos = Qwen2VLVideoProcessor(size=limits, fps=2, min_frames=4, max_frames=16)
        case _:
            limits = {"shortest_edge": 64 * 64, "longest_edge": 128 * 128}
            of_whole_clip = {"shortest_edge": 4 * 64 * 64, "longest_edge": 16 * 96 * 96}
            mean_and_std = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
            images = Qwen2VLImageProcessor(size=limits, patch_size=16, **mean_and_std)
            videos = Qwen3VLVideoProcessor(size=of_whole_clip, fps=2, min_frames=4, max_frames=16)
    processor_class = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}.get(
        model_type, Qwen3VLProcessor
    )
    return processor_class(
        image_processor=images,
        tokenizer=build_tokenizer(model_type, text, merges),
        video_processor=videos,
        chat_template=chat_template(model_type),
    )


def build_config(
    model_type: str,
    tie: bool = True,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    tokenizer: Qwen2Tokenizer | Qwen3_5Tokenizer | None = None,
) -> PreTrainedConfig:
    """Return a complete small config. `text` and `vision` replace single values of its two halves."""
    tokenizer = tokenizer or build_tokenizer(model_type)
    text_base, vision_base, config_class = copy.deepcopy(_shapes(model_type))
    text_config = {
        **text_base,
        "vocab_size": math.ceil(len(tokenizer) / 64) * 64,
        "max_position_embeddings": 32768,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": tie,
        **(text or {}),
    }
    width_key = "hidden_size" if model_type == "qwen2_vl" else "out_hidden_size"
    vision_config = {**vision_base, width_key: text_config["hidden_size"], **(vision or {})}
    return config_class(
        text_config=text_config,
        vision_config=vision_config,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=tie,
    )


def _shapes(model_type: str) -> tuple[dict[str, Any], dict[str, Any], type[PreTrainedConfig]]:
    vision = {key: value for key, value in VISION_3.items() if key != "deepstack_visual_indexes"}
    match model_type:
        case "qwen2_vl":
            return {**TEXT_SMALL, "rope_parameters": ROPE_2}, VISION_2, Qwen2VLConfig
        case "qwen2_5_vl":
            return {**TEXT_2_5, "rope_parameters": ROPE_2_5}, VISION_2_5, Qwen2_5_VLConfig
        case "qwen3_vl":
            return {**TEXT_SMALL, "head_dim": 16, "rope_parameters": ROPE_3}, VISION_3, Qwen3VLConfig
        case "qwen3_vl_moe":
            text = {**TEXT_SMALL, **EXPERTS, "head_dim": 16, "rope_parameters": ROPE_3}
            return text, VISION_3, Qwen3VLMoeConfig
        case "qwen3_5":
            return (
                {**TEXT_SMALL, **LINEAR_ATTENTION, "head_dim": 16, "rope_parameters": ROPE_3_5},
                vision,
                Qwen3_5Config,
            )
        case "qwen3_5_moe":
            text = {**TEXT_SMALL, **LINEAR_ATTENTION, **EXPERTS, **SHARED_EXPERT}
            del text["intermediate_size"], text["decoder_sparse_step"]  # all decoder layers have experts
            text |= {"head_dim": 16, "rope_parameters": ROPE_3_5}
            return text, vision, Qwen3_5MoeConfig
    raise ValueError(f"no tiny model of type {model_type!r}; there are {', '.join(FAMILIES)}")


def build_model(
    model_type: str,
    seed: int = 0,
    tie: bool = True,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    tokenizer: Qwen2Tokenizer | Qwen3_5Tokenizer | None = None,
) -> PreTrainedModel:
    """Return a random float32 model on the CPU.

    The same seed gives the same model. The random state of the caller does not change.
    """
    config = build_config(model_type, tie, text, vision, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if name.endswith(".A_log"):
            # The states of a new model fade within two tokens. Those of a trained one last, and so do these.
            parameter.data -= math.log(40)
    end, pad = config.text_config.eos_token_id, config.text_config.bos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=pad, eos_token_id=[end, pad], pad_token_id=pad, do_sample=False
    )
    return model.eval()


def save_tiny(
    model_type: str,
    folder: str | Path,
    seed: int = 0,
    model: PreTrainedModel | None = None,
    processor: ProcessorMixin | None = None,
) -> Path:
    """Save a checkpoint folder in bfloat16, like a published one, and return its path.

    Without `model`, a random model is saved.
    """
    folder = Path(folder)
    weights = build_model(model_type, seed) if model is None else copy.deepcopy(model)
    weights.to(torch.bfloat16)
    for half in (weights.config.text_config, weights.config.vision_config):
        half.dtype = torch.bfloat16
    weights.save_pretrained(folder)
    (processor or build_processor(model_type)).save_pretrained(folder)
    return folder
