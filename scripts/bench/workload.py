"""The training data of the benchmarks: files with drawn images of mixed sizes and answers of mixed lengths."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from qwenvl_train.families.tiny import CORPUS

SEED = 0


@dataclass(frozen=True)
class Workload:
    pairs: bool
    """Whether each question has a second, rejected answer."""
    shortest: int
    longest: int
    """The largest number of words in an answer."""
    smallest: float
    """The smallest area of an image, as a share of the model's limit. The largest area is twice the limit."""

    @property
    def unit(self) -> str:
        return "pairs" if self.pairs else "samples"


ANSWERS = Workload(pairs=False, shortest=4, longest=400, smallest=2**-4)
# Answers in preference data are usually a few sentences about larger images.
PAIRS = Workload(pairs=True, shortest=4, longest=100, smallest=2**-2)


@dataclass(frozen=True)
class Conversation:
    pictures: list[str]
    question: str
    answer: str
    rejected: str | None


def draw(workload: Workload, folder: Path, samples: int, most_pixels: int) -> list[Conversation]:
    """Draw the samples. Every fourth has two images. Areas and lengths are distributed evenly on a logarithmic
    scale."""
    rng = np.random.default_rng(SEED)
    drawn = []
    for index in range(samples):
        pictures = [folder / f"{index}-{number}.jpg" for number in range(2 if index % 4 == 3 else 1)]
        for picture in pictures:
            area = most_pixels * 2 ** rng.uniform(math.log2(workload.smallest), 1)
            aspect = 2 ** rng.uniform(-1, 1)
            _picture(rng, round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))).save(picture, quality=90)
        answers = [_answer(rng, workload) for _ in range(2 if workload.pairs else 1)]
        rejected = answers[1] if workload.pairs else None
        drawn.append(
            Conversation([str(picture) for picture in pictures], "What is in the picture?", answers[0], rejected)
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(_as_row(one)) + "\n" for one in drawn), encoding="utf-8")
    return drawn


def _answer(rng: np.random.Generator, workload: Workload) -> str:
    length = round(math.exp(rng.uniform(math.log(workload.shortest), math.log(workload.longest))))
    return " ".join(rng.choice(CORPUS.split(), length))


def _picture(rng: np.random.Generator, width: int, height: int) -> Pillow.Image:
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC)


def _as_row(conversation: Conversation) -> dict[str, Any]:
    asked = [{"type": "image", "image": picture} for picture in conversation.pictures]
    row = {
        "messages": [
            {"role": "user", "content": [*asked, {"type": "text", "text": conversation.question}]},
            {"role": "assistant", "content": [{"type": "text", "text": conversation.answer}]},
        ]
    }
    return row if conversation.rejected is None else row | {"rejected_response": conversation.rejected}
