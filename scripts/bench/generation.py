"""Measure how fast answers to questions about pictures are generated, by this project and by transformers, on one core:
python scripts/bench/generation.py [--output tests/baselines/generation_tiny.json]

The tiny embedded Qwen2.5-VL answers 64 questions with drawings of different sizes and texts of different lengths. With
`short`, it ends each answer itself, after a few tokens. With `long`, every answer has 32 tokens. The times include the
reading of the pictures. All ways run alternately in one process, so that other load on the computer affects them alike,
and must give the same words.
"""

import os

# One core. The variable is read when the libraries are loaded.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import results
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.config.assets import asset_dir
from qwenvl_train.config.compose import compose
from qwenvl_train.data.sample import Image as Picture
from qwenvl_train.data.sample import Sample, Text, Turn
from qwenvl_train.evaluation.batches import batches_of
from qwenvl_train.evaluation.generation import AnswerGenerator, request_row
from qwenvl_train.model.build import build_for_inference
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.run.rows import make_renderer

MODEL = asset_dir("data") / "tiny"
QUESTIONS, BATCH, LONG = 64, 32, 32
GREEDY = {"do_sample": False, "repetition_penalty": 1.0}
PACKAGES = ("torch", "torchvision", "transformers", "numpy", "pillow")
WORDS = {"ours": "ours", "one": "transformers, one by one", "padded": f"transformers, left-padded batches of {BATCH}"}
Way = Callable[[list[dict[str, Any]]], list[str]]


def draw_questions(folder: Path) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    drawings = sorted((asset_dir("data") / "shapes" / "images").glob("eval-*.png"))
    questions = []
    for index in range(QUESTIONS):
        picture = Image.open(drawings[index]).convert("RGB")
        width, height = (28 * int(side) for side in rng.integers(2, 7, 2))
        path = folder / f"{index:02d}.png"
        picture.resize((width, height)).save(path)
        hint = "It is a drawing. " * int(rng.integers(0, 9))
        questions.append({"picture": path, "text": f"{hint}What is it?"})
    return questions


def ours(model: torch.nn.Module, config: Any, processor: Any, limit: int) -> Way:
    family = load_family(config.model)
    renderer = make_renderer(config, processor, family)
    generate = AnswerGenerator(model, family, processor.tokenizer, limit)

    def sample_of(index: int, question: dict[str, Any]) -> Sample:
        asked = Turn("user", (Picture(str(question["picture"])), Text(question["text"])), train=False)
        return Sample(str(index), "questions", index + 1, (asked, Turn("assistant", (Text("?"),), train=True)))

    def answer(questions: list[dict[str, Any]]) -> list[str]:
        samples = [sample_of(index, question) for index, question in enumerate(questions)]
        lengths = np.array([renderer.layout(sample).length for sample in samples])
        words = [""] * len(samples)
        for group in batches_of(range(len(samples)), lengths, BATCH):
            row = request_row([samples[index] for index in group], renderer, processor.tokenizer)
            for one in generate(row):
                words[one.request.sample.line - 1] = one.text
        return words

    return answer


def of_transformers(model: torch.nn.Module, processor: Any, size: int, limit: int) -> Way:
    def answer(questions: list[dict[str, Any]]) -> list[str]:
        words = []
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            chats = [
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question["text"]}]}]
                for question in part
            ]
            texts = [processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
            images = [Image.open(question["picture"]).convert("RGB") for question in part]
            inputs = processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")
            produced = model.generate(**inputs, max_new_tokens=limit, **GREEDY)
            for ids in produced[:, inputs["input_ids"].shape[1] :]:
                text = processor.tokenizer.decode(ids)
                words.append(text.partition("<|im_end|>")[0].partition("<|endoftext|>")[0])
        return words

    return answer


def measure(rounds: int) -> dict[str, Any]:
    config = compose([f"model.path={MODEL}", "tune_mm_mlp=true", "data=shapes"]).config
    family = load_family(config.model)
    processor = AutoProcessor.from_pretrained(MODEL)
    mine = build_for_inference(config, family, processor, "fp32", torch.device("cpu"))
    theirs = AutoModelForImageTextToText.from_pretrained(MODEL, dtype=torch.float32).eval()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        questions = draw_questions(Path(folder))
        for job in ("short", "long"):
            if job == "long":  # a token that the model never gives
                for model in (mine, theirs):
                    model.generation_config.eos_token_id = [processor.tokenizer.convert_tokens_to_ids("<|box_end|>")]
            ways = {
                "ours": ours(mine, config, processor, LONG),
                "one": of_transformers(theirs, processor, 1, LONG),
                "padded": of_transformers(theirs, processor, BATCH, LONG),
            }
            answers = {name: [_cut(one) for one in way(questions)] for name, way in ways.items()}
            assert answers["ours"] == answers["one"]
            same = np.mean([one == other for one, other in zip(answers["ours"], answers["padded"], strict=True)])
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, way in ways.items():
                    start = time.process_time()
                    way(questions)
                    seconds[name].append(time.process_time() - start)
            found[job] = {
                "answers_per_cpu_second": {
                    name: round(QUESTIONS / statistics.median(taken), 1) for name, taken in seconds.items()
                },
                "ours_is_times": {
                    name: round(statistics.median(np.divide(taken, seconds["ours"])), 2)
                    for name, taken in seconds.items()
                },
                "padded_gives_the_same_answers": round(float(same), 3),
            }
    return {"job": {"questions": QUESTIONS, "batch_size": BATCH, "long": LONG, "rounds": rounds}} | found


def _cut(text: str) -> str:
    return text.partition("<|im_end|>")[0].partition("<|endoftext|>")[0]


def show(result: dict[str, Any]) -> None:
    table = Table("one core", "short: answers/s", "ours is", "long: answers/s", "ours is")
    for name, words in WORDS.items():
        cells = []
        for job in ("short", "long"):
            cells += [str(result[job]["answers_per_cpu_second"][name]), f"{result[job]['ours_is_times'][name]} ×"]
        table.add_row(words, *cells)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many counts")
    results.add_output(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(arguments.rounds) | results.surroundings(PACKAGES, ("cpu", "cores"), gpus=[])
    show(result)
    results.write(result, arguments.output)


if __name__ == "__main__":
    main()
