"""Make the embedded checkpoints: python scripts/make_tiny_models.py [--output data] [--steps 1200] [--only tiny]

data/tiny is a Qwen2.5-VL that is trained from scratch to name the colour and shape in a drawing. The checkpoints of the
other families have random weights. The script takes about six minutes on one core.
"""

import argparse
import math
import random
import time
from pathlib import Path

import torch
from shapes import Picture, ask_about, draw_picture
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
    logging,
)

from qwenvl_train.families.tiny import build_model, build_processor, save_tiny

UNTRAINED = {f"tiny_{name}": name for name in ("qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")}
BATCH_SIZE = 32
PEAK_LR = 2e-3
WARMUP_STEPS = 50
TRAIN_SEED, HELD_OUT_SEED = 0, 1


def draw_lessons(rng: random.Random, count: int) -> list[tuple[Picture, str, str]]:
    """Draw new images on every call, so that there is no training set to overfit."""
    pictures = [draw_picture(rng) for _ in range(count)]
    return [(picture, *ask_about(picture, rng)) for picture in pictures]


def conversation(picture: Picture, question: str, answer: str | None = None) -> list[dict]:
    parts = [{"type": "image", "image": picture.image}, {"type": "text", "text": question}]
    turns = [{"role": "user", "content": parts}]
    if answer is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return turns


def encode(processor: ProcessorMixin, conversations: list[list[dict]], side: str, **kwargs: bool) -> BatchFeature:
    return processor.apply_chat_template(
        conversations,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": side},
        **kwargs,
    )


def answer_labels(processor: ProcessorMixin, input_ids: torch.Tensor) -> torch.Tensor:
    """Return labels for all answers, each with its <|im_end|>. All other tokens are ignored in the loss."""
    opening = processor.tokenizer("<|im_start|>assistant\n").input_ids
    turn_end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    labels = torch.full_like(input_ids, -100)
    for row, ids in enumerate(input_ids.tolist()):
        for start in range(len(ids)):
            if ids[start : start + len(opening)] == opening:
                first, end = start + len(opening), ids.index(turn_end, start) + 1
                labels[row, first:end] = input_ids[row, first:end]
    return labels


def learning_rate(step: int, steps: int) -> float:
    if step < WARMUP_STEPS:
        return PEAK_LR * (step + 1) / WARMUP_STEPS
    return PEAK_LR * 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (steps - WARMUP_STEPS)))


@torch.no_grad()
def exact_match(model: PreTrainedModel, processor: ProcessorMixin, count: int, seed: int = HELD_OUT_SEED) -> float:
    """Return the share of generated answers that are correct, on images drawn with another seed."""
    lessons = draw_lessons(random.Random(seed), count)
    asked = [conversation(picture, question) for picture, question, _ in lessons]
    inputs = encode(processor, asked, "left", add_generation_prompt=True)
    answers = model.generate(**inputs, max_new_tokens=8)[:, inputs["input_ids"].shape[1] :]
    spoken = processor.batch_decode(answers, skip_special_tokens=True)
    return sum(said == right for said, (_, _, right) in zip(spoken, lessons, strict=True)) / count


def teach(model: PreTrainedModel, processor: ProcessorMixin, steps: int) -> None:
    """Train all parameters with AdamW, warm-up and a cosine schedule. Progress is printed every 50 steps."""
    rng = random.Random(TRAIN_SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.01, betas=(0.9, 0.95))
    started = time.time()
    for step in range(steps):
        model.train()
        inputs = encode(processor, [conversation(*lesson) for lesson in draw_lessons(rng, BATCH_SIZE)], "right")
        loss = model(**inputs, labels=answer_labels(processor, inputs["input_ids"]), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            right = exact_match(model.eval(), processor, count=100)
            print(
                f"step {step + 1}/{steps}  loss {loss:.4f}  held-out {right:.0%}  {time.time() - started:.0f} s",
                flush=True,
            )


def make_taught(folder: Path, steps: int) -> None:
    model = build_model("qwen2_5_vl", seed=0)
    teach(model, build_processor("qwen2_5_vl"), steps)
    save_tiny("qwen2_5_vl", folder, model=model)
    saved = AutoModelForImageTextToText.from_pretrained(folder)
    right = exact_match(saved, AutoProcessor.from_pretrained(folder), count=500, seed=HELD_OUT_SEED + 1)
    print(f"{folder}: {right:.1%} of 500 held-out questions answered right by the saved {saved.dtype} weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "data")
    parser.add_argument("--steps", type=int, default=1200, help="training steps of data/tiny")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["tiny", *UNTRAINED], help="make this one alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    for name, model_type in UNTRAINED.items():
        if options.only in (None, name):
            print(f"{save_tiny(model_type, options.output / name)}: random weights")
    if options.only in (None, "tiny"):
        make_taught(options.output / "tiny", options.steps)


if __name__ == "__main__":
    main()
