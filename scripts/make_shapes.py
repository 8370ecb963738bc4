"""Draw the sample set data/shapes: python scripts/make_shapes.py [--output data/shapes]"""

import argparse
import json
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from shapes import BIN_QUESTIONS, COLOURS, SHAPES, Picture, draw_picture

TRAIN_PER_BIN = 16
EVAL_PER_BIN = 4
SEED = 2026


def draw_parts(seed: int) -> Iterator[Picture]:
    """Draw every bin equally often and no image twice, so that no evaluation image is in the training set."""
    rng = random.Random(seed)
    seen: set[bytes] = set()
    for colour, shape in product(COLOURS, SHAPES):
        for _ in range(TRAIN_PER_BIN + EVAL_PER_BIN):
            picture = draw_picture(rng, colour, shape)
            while picture.image.tobytes() in seen:
                picture = draw_picture(rng, colour, shape)
            seen.add(picture.image.tobytes())
            yield picture


def train_row(name: str, question: str, answer: str) -> dict:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": f"images/{name}.png", "conversations": turns}


def eval_row(name: str, question: str, answer: str) -> dict:
    asked = [{"type": "image", "image": f"images/{name}.png"}, {"type": "text", "text": question}]
    answered = [{"type": "text", "text": answer}]
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return {"id": name, "messages": turns}


def pair_row(name: str, picture: Picture, index: int, rng: random.Random) -> dict:
    """Return one pair. Seven of eight pairs have two true answers, and the image determines which one is preferred. The
    eighth has a true and a false answer to a question that the model was taught, so that it does not forget it."""
    question, chosen, rejected = "What is it?", picture.preferred, picture.refused[index % 2]
    if index % 8 == 7:
        question, chosen, rejected = rng.choice(
            [
                ("What colour is it?", picture.colour, rng.choice([one for one in COLOURS if one != picture.colour])),
                ("What shape is it?", picture.shape, rng.choice([one for one in SHAPES if one != picture.shape])),
            ]
        )
    asked = {"id": name, "images": [f"images/{name}.png"], "prompt": f"<image>{question}"}
    return asked | {"chosen": chosen, "rejected": rejected}


def write_split(folder: Path, name: str, pictures: list[Picture], rng: random.Random) -> None:
    """Write training rows in the llava format and evaluation rows in the messages format, as examples of both."""
    row = {"train": train_row, "eval": eval_row}[name]
    rng.shuffle(pictures)
    of_pairs = random.Random(SEED)
    lines, pairs = [], []
    for index, picture in enumerate(pictures):
        row_id = f"{name}-{index:03d}"
        picture.image.save(folder / "images" / f"{row_id}.png", optimize=True)
        lines.append(json.dumps(row(row_id, rng.choice(BIN_QUESTIONS), picture.bin)))
        pairs.append(json.dumps(pair_row(row_id, picture, index, of_pairs)))
    (folder / f"{name}_pairs.jsonl").write_text("\n".join(pairs) + "\n")
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "data" / "shapes")
    folder = parser.parse_args().output
    (folder / "images").mkdir(parents=True, exist_ok=True)
    parts = list(draw_parts(SEED))
    per_bin = TRAIN_PER_BIN + EVAL_PER_BIN
    train = [part for index, part in enumerate(parts) if index % per_bin < TRAIN_PER_BIN]
    held_out = [part for index, part in enumerate(parts) if index % per_bin >= TRAIN_PER_BIN]
    rng = random.Random(SEED)
    write_split(folder, "train", train, rng)
    write_split(folder, "eval", held_out, rng)
    print(f"{folder}: {len(train)} rows to train on, {len(held_out)} to evaluate on")


if __name__ == "__main__":
    main()
