"""Make the checkpoint of the tasks' sample sets: python scripts/make_tiny_tasks.py [--output data/tiny_tasks]

It is a Qwen3-VL that is trained from scratch on drawings. First its vision tower learns what is at each visual token.
Then all of it learns to tell what is where, to read, to tell times, and to call tools, while two attention heads are
taught where to look. It meets the notations of the sample sets' answers only as texts to repeat, and not their rules.
The script takes a good hour on one core.
"""

import argparse
import json
import math
import random
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import yaml
from make_tiny_models import answer_labels
from samples.drawing import Box, Size
from samples.lessons import CALLS, FPS, LESSONS, Kind, Lesson, repeat
from samples.scene import THINGS, Thing, draw_scene, shared
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
    logging,
)

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.agent_tools import AGENT_TOOLS, schema_of, screen_of
from qwenvl_train.families.tiny import CORPUS, ROPE_3, TEXT_2_5, VISION_2_5, build_model, build_processor, save_tiny

MODEL_TYPE = "qwen3_vl"
MERGES = 1600
"""More than the other embedded checkpoints have, so that the long schemas of tools become fewer tokens."""
CELL = 32
"""Width and height of a visual token, in pixels."""
TEXT = {**TEXT_2_5, "head_dim": 32, "rope_parameters": {**ROPE_3, "mrope_section": [6, 5, 5]}}
VISION = {
    "depth": 4,
    "hidden_size": VISION_2_5["hidden_size"],
    "intermediate_size": VISION_2_5["intermediate_size"],
    "initializer_range": VISION_2_5["initializer_range"],
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 2],
}
VOCABULARY = sorted({word for thing in THINGS for word in thing.split()})
"""The words in the names of things."""
BINS = 40
"""In so many parts of a side the vision tower learns to tell where a thing begins and ends."""
SHARE = 0.3
"""A visual token tells of a thing if it holds this share of it, or if this share of the token is covered by it."""
SCENES = 16
"""The images in a step of the vision tower."""
PEAK_LR = 2e-3
SLOWER = 0.1
"""The learning rate of the vision tower in the second part, relative to that of the language model."""
WARMUP_STEPS = 50
CALLS_LR = 1e-3
HEADS = {"finds": 0, "copies": 2}
"""The attention heads that are taught where to look. Each has keys of its own. From answers alone, so small a model has
not learned in thousands of steps to find what it is asked for among several things."""
HEADS_LAYER = 2
ATTENTION_WEIGHT = 0.3
"""The weight of the loss on these heads, relative to that on the answers."""
SEEDS = {"texts": 2, "scenes": 3, "lessons": 5, "calls": 9, "held out": 77}


def build() -> tuple[PreTrainedModel, ProcessorMixin]:
    processor = build_processor(MODEL_TYPE, "\n".join([CORPUS, *_texts()]), MERGES)
    model = build_model(MODEL_TYPE, text=TEXT, vision=VISION, tokenizer=processor.tokenizer)
    model.set_attn_implementation("eager")  # other implementations do not return the weights of the attention
    places = model.model.visual.pos_embed
    places.weight.data.copy_(_waves(math.isqrt(places.num_embeddings), places.embedding_dim))
    return model, processor


def _texts() -> Iterator[str]:
    """Yield the text that the model meets: the prompts of tasks, the schemas of tools, and the notations of answers."""
    family = FAMILIES[MODEL_TYPE]
    for tool in AGENT_TOOLS:
        yield json.dumps(schema_of(tool, family, screen_of(tool, family, (128, 128))))
    for path in sorted((asset_dir("configs") / "task").glob("*.yaml")):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))["convert"]
        yield from _strings([settings["prompts"], settings.get("system")])
    yield " ".join(THINGS)
    rng = random.Random(SEEDS["texts"])
    for _ in range(40):
        yield from (one.answer for one in repeat(rng).exchanges if isinstance(one.answer, str))


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            yield from _strings(list(value.values()))
        case list():
            for one in value:
                yield from _strings(one)


def _waves(side: int, width: int) -> torch.Tensor:
    """Return sines and cosines of the position as a first position embedding. Random numbers as small as those of other
    weights are too faint beside those of the pixels to be learned from."""
    rates = torch.exp(torch.linspace(math.log(0.25), math.log(4), width // 4))
    angles = (torch.arange(side) + 0.5)[:, None] / side * math.pi * rates
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    grid = [axis[:, None].expand(side, side, -1), axis[None].expand(side, side, -1)]
    return torch.cat(grid, dim=-1).reshape(side * side, width)


def learning_rate(step: int, steps: int, peak: float) -> float:
    return peak * min(1, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))


class WordEmbeddings(nn.Module):
    """Tells which words are at a visual token, by the products of its embedding with those of the words."""

    def __init__(self, processor: ProcessorMixin, embeddings: nn.Parameter) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.full((len(VOCABULARY),), -3.0))
        forms = [processor.tokenizer([word, f" {word}"]).input_ids for word in VOCABULARY]
        shares = torch.zeros(len(VOCABULARY), len(embeddings))
        for row, tokens in enumerate(forms):
            for token in [one for form in tokens for one in form]:
                shares[row, token] += 1 / len(tokens)
        self.register_buffer("shares", shares)
        """How often each token is in a word, on average of the word with and without a space before it."""

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.scale * seen @ (self.shares @ self.embeddings).T + self.bias


def teach_vision(model: PreTrainedModel, processor: ProcessorMixin, steps: int) -> None:
    """Train the vision tower to tell at each visual token which things are there and where the largest one begins and
    ends. This is much faster than learning it from answers. What is there is told in the words' own embeddings, so that
    the language model can compare what it sees with what it is asked for. The sides are read by a linear layer that is
    dropped afterwards."""
    tower, embeddings = model.model.visual, model.get_input_embeddings()
    spoken = WordEmbeddings(processor, embeddings.weight)
    sides = nn.Linear(embeddings.embedding_dim, 4 * BINS)
    parameters = [*tower.parameters(), *spoken.parameters(), *sides.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LR, weight_decay=0.01, betas=(0.9, 0.98))
    rng, started = random.Random(SEEDS["scenes"]), time.time()
    for step in range(steps):
        scenes = [draw_scene(rng) for _ in range(SCENES)]
        pictures = processor.image_processor(images=[image for image, _ in scenes], return_tensors="pt")
        cells = [cell for image, things in scenes for cell in _cells(image.size, things)]
        present = torch.tensor([[word in held for word in VOCABULARY] for held, _ in cells], dtype=torch.float32)
        places = torch.tensor([place or (0, 0, 0, 0) for _, place in cells])
        is_placed = torch.tensor([place is not None for _, place in cells])
        seen = tower(pictures["pixel_values"], grid_thw=pictures["image_grid_thw"]).pooler_output
        loss = functional.binary_cross_entropy_with_logits(spoken(seen), present, reduction="sum") / present.sum()
        placed = sides(seen)[is_placed].view(-1, BINS)
        loss = loss + functional.cross_entropy(placed, places[is_placed].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps, PEAK_LR)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 250 == 0 or step + 1 == steps:
            found = ((spoken(seen) > 0) & (present > 0)).sum() / present.sum()
            off = (placed.argmax(-1) - places[is_placed].flatten()).abs().float().mean() / BINS
            print(
                f"vision {step + 1}/{steps}  loss {loss:.3f}  found {found:.0%}  sides off by {off:.1%}  "
                f"{time.time() - started:.0f} s",
                flush=True,
            )


def _cells(size: tuple[int, int], things: list[Thing]) -> Iterator[tuple[set[str], tuple[int, ...] | None]]:
    """Yield the words for the things in each visual token, and the sides of the largest one in parts of the image."""
    width, height = size
    for y in range(0, height, CELL):
        for x in range(0, width, CELL):
            cell = x, y, x + CELL, y + CELL
            areas = {thing: shared(thing.box, cell) for thing in things}
            held = [one for one in areas if _is_in(one.box, cell)]
            largest = max(held, key=lambda one: areas[one] / shared(one.box, one.box), default=None)
            words = {word for one in held for word in one.name.split()}
            sides = largest and zip(largest.box, (width, height, width, height), strict=True)
            yield words, sides and tuple(min(BINS - 1, BINS * at // side) for at, side in sides)


def _is_in(box: Box, cell: Box) -> bool:
    """Return whether a visual token tells of what is in a box."""
    return shared(box, cell) >= SHARE * min(CELL**2, shared(box, box))


def encode(processor: ProcessorMixin, lessons: list[Lesson], side: str, only_first: bool = False) -> BatchFeature:
    """Return the inputs of lessons of one kind, or of their first questions alone."""
    family, tool = FAMILIES[MODEL_TYPE], lessons[0].tool
    tools = [schema_of(tool, family, screen_of(tool, family, (128, 128)))] if tool else None
    turns = [lesson.first_question if only_first else lesson.turns for lesson in lessons]
    texts = [processor.apply_chat_template(one, tools=tools, add_generation_prompt=only_first) for one in turns]
    media, given = [lesson.medium for lesson in lessons], {}
    if isinstance(media[0], list):
        metadata = [
            {"fps": FPS, "total_num_frames": len(one), "frames_indices": list(range(len(one)))} for one in media
        ]
        given = {"videos": media, "video_metadata": metadata, "do_sample_frames": False}
    elif media[0] is not None:
        given = {"images": media}
    return processor(text=texts, **given, padding=True, padding_side=side, return_tensors="pt")


def where_to_look(
    processor: ProcessorMixin, input_ids: torch.Tensor, labels: torch.Tensor, lessons: list[Lesson]
) -> dict[str, torch.Tensor]:
    """Return for each head whether it is to look from a token of an answer at an earlier token, as (lesson, token,
    earlier token): at the visual tokens that hold what the answer is about, or at the word of the question that comes
    next in the answer."""
    shape = *input_ids.shape, input_ids.shape[1]
    wanted = {name: torch.zeros(shape, dtype=torch.bool) for name in HEADS}
    for row, lesson in enumerate(lessons):
        ids = input_ids[row].tolist()
        ends = list(accumulate(len(processor.tokenizer.decode([one])) for one in ids))
        text = processor.tokenizer.decode(ids)
        for (start, end), one in zip(_spans(labels[row]), lesson.exchanges, strict=True):
            # The token before the first one of an answer predicts it.
            if one.box is not None:
                held = _tokens_in(one.box, lesson.medium.size, ids, processor.image_token_id)
                for token in range(start - 1, end - 1):
                    wanted["finds"][row, token, held] = True
            if one.copied:
                to, source = text.index(one.copied, ends[start - 1]), text.rindex(one.copied, 0, ends[start - 1])
                for at in range(len(one.copied)):
                    token = bisect_right(ends, to + at)
                    wanted["copies"][row, token - 1, bisect_right(ends, source + at)] = True
    return wanted


def _tokens_in(box: Box, size: Size, ids: list[int], image_token: int) -> list[int]:
    """Return the visual tokens that hold what is in a box, by their places in the text."""
    places = [at for at, token in enumerate(ids) if token == image_token]
    corners = [(x, y) for y in range(0, size[1], CELL) for x in range(0, size[0], CELL)]
    return [at for at, (x, y) in zip(places, corners, strict=True) if _is_in(box, (x, y, x + CELL, y + CELL))]


def _spans(labels: torch.Tensor) -> list[tuple[int, int]]:
    """Return the start and the end of each answer."""
    is_answer = functional.pad((labels != -100).int(), (1, 1)).diff()
    starts, ends = (is_answer == 1).nonzero().flatten().tolist(), (is_answer == -1).nonzero().flatten().tolist()
    return list(zip(starts, ends, strict=True))


def teach_answers(
    model: PreTrainedModel, processor: ProcessorMixin, kinds: Mapping[str, Kind], steps: int, seed: int, peak: float
) -> None:
    """Train all parameters on the answers. The lessons of a step are of one kind."""
    tower = {id(parameter) for parameter in model.model.visual.parameters()}
    groups = [
        {"params": [one for one in model.parameters() if (id(one) in tower) == is_tower], "factor": factor}
        for is_tower, factor in ((False, 1), (True, SLOWER))
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak, weight_decay=0.01, betas=(0.9, 0.98))
    rng, started = random.Random(seed), time.time()
    for step in range(steps):
        model.train()
        possible = [kind for kind in kinds.values() if kind.begins * steps <= step <= kind.ends * steps]
        (kind,) = rng.choices(possible, [one.weight for one in possible])
        lessons = [kind.draw(rng) for _ in range(kind.batch)]
        inputs = encode(processor, lessons, "right")
        labels = answer_labels(processor, inputs["input_ids"])
        outputs = model(**inputs, labels=labels, use_cache=False, output_attentions=True)
        loss = outputs.loss
        for name, tokens in where_to_look(processor, inputs["input_ids"], labels, lessons).items():
            if (is_taught := tokens.any(-1)).any():
                weights = outputs.attentions[HEADS_LAYER][:, HEADS[name]]
                found = (weights * tokens).sum(-1)[is_taught]
                loss = loss - ATTENTION_WEIGHT * found.clamp_min(1e-6).log().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(step, steps, peak)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 250 == 0 or step + 1 == steps:
            right = "  ".join(f"{name} {share:.0%}" for name, share in scores(model, processor, 24).items())
            print(f"answers {step + 1}/{steps}  loss {loss:.4f}  {right}  {time.time() - started:.0f} s", flush=True)


@torch.no_grad()
def scores(model: PreTrainedModel, processor: ProcessorMixin, count: int) -> Mapping[str, float]:
    """Return the share of right first answers of each kind, on images drawn with another seed."""
    model.eval()
    found = {}
    for name, kind in LESSONS.items():
        rng = random.Random(SEEDS["held out"])
        lessons = [kind.draw(rng) for _ in range(count)]
        inputs = encode(processor, lessons, "left", only_first=True)
        answers = model.generate(**inputs, max_new_tokens=160)[:, inputs["input_ids"].shape[1] :]
        spoken = processor.batch_decode(answers, skip_special_tokens=True)
        found[name] = sum(lesson.is_right(said) for said, lesson in zip(spoken, lessons, strict=True)) / count
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=asset_dir("data") / "tiny_tasks")
    parser.add_argument("--vision-steps", type=int, default=3500)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--call-steps", type=int, default=1300)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    model, processor = build()
    teach_vision(model, processor, options.vision_steps)
    teach_answers(model, processor, LESSONS, options.steps, SEEDS["lessons"], PEAK_LR)
    teach_answers(model, processor, CALLS, options.call_steps, SEEDS["calls"], CALLS_LR)
    save_tiny(MODEL_TYPE, options.output, model=model, processor=processor)
    saved = AutoModelForImageTextToText.from_pretrained(options.output)
    for name, share in scores(saved, AutoProcessor.from_pretrained(options.output), 200).items():
        print(f"{name}: {share:.1%} of 200 held-out answers are right, by the saved {saved.dtype} weights")


if __name__ == "__main__":
    main()
