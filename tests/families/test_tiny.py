"""The embedded models are complete, load like published ones, and answer as data/README.md says."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import (
    ADDED_TOKENS,
    ADDED_WORDS,
    build_config,
    build_model,
    build_processor,
    build_tokenizer,
    save_tiny,
)

DATA = asset_dir("data")
EMBEDDED = {
    "tiny": "qwen2_5_vl",
    "tiny_qwen2_vl": "qwen2_vl",
    "tiny_qwen3_vl": "qwen3_vl",
    "tiny_qwen3_vl_moe": "qwen3_vl_moe",
    "tiny_qwen3_5": "qwen3_5",
    "tiny_qwen3_5_moe": "qwen3_5_moe",
}


def ask(picture: Image.Image, question: str) -> list[dict]:
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def encode(processor, conversation: list[dict]):
    return processor.apply_chat_template(
        [conversation], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )


@pytest.mark.parametrize(
    "text",
    [
        "What is it?",
        "naïve façade, 漢字かな交じり, 😀👩‍👩‍👧, Ελλάς, עברית",
        " two  spaces,\ttab\n\n\nand lines \n",
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>",
        "".join(map(chr, range(1, 128))),
    ],
)
def test_any_text_encodes_and_comes_back(text):
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_added_tokens_follow_the_vocabulary_in_the_published_order():
    tokenizer = build_tokenizer()
    first = len(tokenizer) - len(ADDED_TOKENS)
    assert tokenizer.convert_tokens_to_ids(ADDED_TOKENS) == list(range(first, len(tokenizer)))
    assert tokenizer("".join(ADDED_TOKENS)).input_ids == list(range(first, len(tokenizer)))
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)


def test_the_words_of_thoughts_and_tools_are_tokens_that_are_not_special():
    tokenizer = build_tokenizer("qwen3_5")
    ids = tokenizer.convert_tokens_to_ids(ADDED_WORDS)
    assert ids == list(range(len(tokenizer) - len(ADDED_WORDS), len(tokenizer)))
    assert tokenizer("".join(ADDED_WORDS)).input_ids == ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "".join(ADDED_WORDS)
    assert tokenizer.convert_tokens_to_ids(ADDED_TOKENS) == build_tokenizer().convert_tokens_to_ids(ADDED_TOKENS)


def test_the_vocabulary_is_the_committed_one(tmp_path):
    build_tokenizer().save_pretrained(tmp_path)
    made = json.loads((tmp_path / "tokenizer.json").read_text())
    committed = json.loads((DATA / "tiny" / "tokenizer.json").read_text())
    assert made["model"]["vocab"] == committed["model"]["vocab"]
    assert made["model"]["merges"] == committed["model"]["merges"]


CONVERSATION = [
    {
        "role": "user",
        "content": [
            {"type": "image", "image": "a.png"},
            {"type": "text", "text": "First.\n"},
            {"type": "video", "video": "b.mp4"},
            {"type": "text", "text": "Second."},
        ],
    },
    {"role": "assistant", "content": "Seen."},
    {"role": "user", "content": " Third "},
]
TURNS = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>First.\n"
    "<|vision_start|><|video_pad|><|vision_end|>Second.<|im_end|>\n"
    "<|im_start|>assistant\nSeen.<|im_end|>\n"
    "<|im_start|>user\n Third <|im_end|>\n"
)
DEFAULT_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_template_writes_the_published_format(model_type):
    processor = build_processor(model_type)
    opening = DEFAULT_SYSTEM if model_type.startswith("qwen2") else ""
    newer = model_type.startswith("qwen3_5")
    turns = TURNS.replace(" Third ", "Third") if newer else TURNS
    assert processor.apply_chat_template(CONVERSATION) == opening + turns
    prompted = processor.apply_chat_template(CONVERSATION, add_generation_prompt=True)
    assert prompted == opening + turns + "<|im_start|>assistant\n" + "<think>\n\n</think>\n\n" * newer
    own = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *CONVERSATION]
    assert processor.apply_chat_template(own) == "<|im_start|>system\nBe brief.<|im_end|>\n" + turns


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("tie", [True, False])
def test_output_weights_are_tied_as_asked(model_type, tie):
    model = build_model(model_type, tie=tie)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is tie


@pytest.mark.parametrize("model_type", FAMILIES)
def test_components_name_every_parameter_once(model_type):
    prefixes = [prefix for paths in FAMILIES[model_type].components.values() for prefix in paths]
    for name, _ in build_model(model_type, tie=False).named_parameters():
        assert sum(name.startswith(f"{prefix}.") for prefix in prefixes) == 1, name


def test_a_seed_gives_the_same_weights_and_leaves_the_random_state_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second = build_model("qwen3_vl", seed=3), build_model("qwen3_vl", seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, build_model("qwen3_vl", seed=4).lm_head.weight)


def test_single_values_can_be_replaced():
    config = build_config("qwen2_5_vl", text={"num_hidden_layers": 2}, vision={"window_size": 112})
    assert (config.text_config.num_hidden_layers, config.vision_config.window_size) == (2, 112)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_saved_folder_loads_and_sees(model_type, tmp_path):
    model = build_model(model_type, seed=1)
    save_tiny(model_type, tmp_path, model=model)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert type(processor) is type(build_processor(model_type))
    assert (loaded.config.model_type, loaded.dtype, model.dtype) == (model_type, torch.bfloat16, torch.float32)

    inputs = encode(processor, ask(Image.new("RGB", (112, 84), "red"), "What is it?"))
    assert (inputs["input_ids"] == loaded.config.image_token_id).sum() == inputs["image_grid_thw"].prod() / 4
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
        logits = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)(**inputs).logits
        assert torch.equal(logits, model(**inputs).logits)
    generated = loaded.generate(**inputs, max_new_tokens=3)
    assert generated.shape[1] > inputs["input_ids"].shape[1]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_video_passes_through(model_type):
    processor, model = build_processor(model_type), build_model(model_type)
    frames = np.random.default_rng(0).integers(0, 255, (8, 84, 112, 3), dtype=np.uint8)
    text = processor.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])
    metadata = [{"fps": 4.0, "total_num_frames": 8, "duration": 2.0}]
    inputs = processor(text=[text], videos=[frames], video_metadata=metadata, return_tensors="pt")
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()


def test_windows_cut_even_a_small_picture():
    inputs = encode(build_processor("qwen2_5_vl"), ask(Image.new("RGB", (84, 84)), "What is it?"))
    vision = build_config("qwen2_5_vl").vision_config
    side_in_patches = vision.window_size // vision.patch_size
    assert inputs["image_grid_thw"][0, 1] > side_in_patches


@pytest.mark.parametrize(("name", "model_type"), EMBEDDED.items())
def test_embedded_checkpoint_is_small_and_of_its_family(name, model_type):
    folder = DATA / name
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == (model_type, "bfloat16")
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < (6_000_000 if name == "tiny" else 2_500_000)
    assert len(AutoTokenizer.from_pretrained(folder)) <= config["text_config"]["vocab_size"]


def test_embedded_checkpoint_names_colour_and_shape():
    from shapes import draw_picture

    model = AutoModelForImageTextToText.from_pretrained(DATA / "tiny")
    processor = AutoProcessor.from_pretrained(DATA / "tiny")
    rng = random.Random(20)
    pictures = [draw_picture(rng) for _ in range(50)]
    inputs = processor.apply_chat_template(
        [ask(picture.image, "What is it?") for picture in pictures],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True, "padding_side": "left"},
    )
    answers = model.generate(**inputs, max_new_tokens=8)[:, inputs["input_ids"].shape[1] :]
    said = processor.batch_decode(answers, skip_special_tokens=True)
    right = [answer == picture.description for answer, picture in zip(said, pictures, strict=True)]
    assert sum(right) >= 45, said


def test_sample_set_is_what_the_script_draws(scripts, tmp_path):
    script = [sys.executable, str(scripts / "make_shapes.py"), "--output", str(tmp_path)]
    subprocess.run(script, check=True, capture_output=True)
    committed = {file.relative_to(DATA / "shapes") for file in (DATA / "shapes").rglob("*") if file.is_file()}
    assert {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()} == committed
    for name in committed:
        assert _content(tmp_path / name) == _content(DATA / "shapes" / name), name


def _content(file: Path) -> bytes:
    """Return the pixels of an image, since another version of Pillow may compress the same pixels differently."""
    return Image.open(file).tobytes() if file.suffix == ".png" else file.read_bytes()


def test_eval_pictures_are_never_train_pictures():
    images = DATA / "shapes" / "images"
    train = {_content(file) for file in images.glob("train-*.png")}
    held_out = {_content(file) for file in images.glob("eval-*.png")}
    assert (len(train), len(held_out), train & held_out) == (480, 120, set())
    assert max(file.stat().st_size for file in images.iterdir()) < 1000
