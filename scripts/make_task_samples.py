"""Draw the sample sets of tasks: python scripts/make_task_samples.py [--output data] [--only recognition]

Each is drawn in a format that people have, and converted as they would convert theirs.
"""

import argparse
import csv
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

from shapes import COLOURS, SHAPES, draw_picture

SEED = 2027
PARTS = dict(zip(SHAPES, (("disc", "coin"), ("plate", "tile"), ("wedge",), ("washer", "seal"), ("hub",)), strict=True))
"""The names of a part of each shape, whatever its colour. The first one is the answer."""
PER_PART = {"train": 16, "eval": 4}
"""The number of images of each shape and colour."""


def draw_recognition(folder: Path) -> None:
    """Draw parts, and a table that names them."""
    rng, seen = random.Random(SEED), set()
    for split, count in PER_PART.items():
        table = []
        for number, (colour, shape) in enumerate(list(product(COLOURS, SHAPES)) * count):
            picture = draw_picture(rng, colour, shape)
            while picture.image.tobytes() in seen:
                picture = draw_picture(rng, colour, shape)
            seen.add(picture.image.tobytes())
            name = f"images/{split}-{number:03}.png"
            picture.image.save(folder / name, optimize=True)
            label, *aliases = PARTS[shape]
            table.append((name, label, "|".join(aliases)))
        rng.shuffle(table)
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("image", "label", "aliases"), *table])


DRAWN: dict[str, Callable[[Path], None]] = {"recognition": draw_recognition}


def make(task: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    DRAWN[task](folder)
    for split in ("train", "eval"):
        words = [f"+task={task}", f"source={folder / f'{split}.csv'}", f"to={folder / f'{split}.jsonl'}"]
        subprocess.run([sys.executable, "-m", "qwenvl_train", "convert", *words], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "data")
    parser.add_argument("--only", choices=DRAWN, help="make this one alone")
    options = parser.parse_args()
    for task in [options.only] if options.only else DRAWN:
        make(task, options.output / task)


if __name__ == "__main__":
    main()
