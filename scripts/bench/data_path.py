"""Measure the time from image files to micro-batches, for this project and others, on one core:
python scripts/bench/data_path.py [--output tests/baselines/data_path.json]

The data are 48 drawn photos of 1280×960 pixels, JPEGs of about 295 kB with 1,230 visual tokens each, four to a
micro-batch. All ways run alternately in one process, so that other load on the computer affects them alike. The ratios
are therefore more reliable than the rates.
"""

import os

# One core, as for a data worker. The variable is read when the libraries are loaded.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import results
import torch
import ways
from PIL import Image as Pillow
from rich.console import Console
from rich.table import Table
from transformers import ProcessorMixin

from qwenvl_train.families.tiny import build_processor
from qwenvl_train.model.pixels import Pixels

WIDTH, HEIGHT = 1280, 960
QUALITY = 90
MICRO_BATCH = 4
TOKENS = 1230
LIMITS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
PACKAGES = ("torch", "torchvision", "transformers", "trl", "qwen-vl-utils", "pillow", "numpy")

WORDS = {
    "floor": "decode and resize only: the floor",
    "ours": "ours, from sample to batch",
    "ours_cached": "ours with data.cache_pictures",
    "official": "as the official script",
    "trl": "TRL's vision collator",
    "qwen_vl_utils": "qwen-vl-utils and processor",
}


def draw_photo(rng: np.random.Generator) -> Pillow.Image:
    """Draw soft shapes with texture and grain, which compress like a photo."""
    picture = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.float32)
    for width, contrast in ((4, 60), (16, 40), (64, 25), (240, 14)):
        coarse = torch.from_numpy(rng.normal(0, contrast, (1, 3, width * HEIGHT // WIDTH, width)))
        picture += torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0].permute(1, 2, 0).numpy()
    picture += rng.normal(0, 3.75, picture.shape)
    return Pillow.fromarray(picture.clip(0, 255).astype(np.uint8))


def draw_rows(folder: Path, count: int) -> Iterator[ways.Row]:
    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"{index:02d}.jpg"
        draw_photo(rng).save(path, quality=QUALITY)
        yield ways.Row(str(path), "What does the picture show?", "It shows soft shapes of many colours.")


def check_equal(processor: ProcessorMixin, batches: dict[str, ways.Batch]) -> None:
    """Check that all ways give equal results, since a way that does something else proves nothing."""
    expected = batches["official"]
    real = expected["attention_mask"]
    ids = expected["input_ids"][real]
    image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (ids == image).sum() == MICRO_BATCH * TOKENS
    pixels = Pixels(processor.image_processor)
    for name in ("ours", "ours_cached"):
        assert torch.equal(batches[name]["input_ids"][0], ids)
        assert torch.equal(batches[name]["labels"][0], expected["labels"][real])
        assert torch.equal(batches[name]["position_ids"][1:, 0], expected["position_ids"][:, real])
        assert torch.equal(pixels(batches[name]["planes"]), expected["pixel_values"])
    for name in ("trl", "qwen_vl_utils"):
        assert torch.equal(batches[name]["input_ids"][real], ids)
    # The pixels of qwen-vl-utils are not compared, since it resizes with Pillow.
    assert torch.equal(batches["trl"]["pixel_values"], expected["pixel_values"])


def measure(pictures: int, rounds: int) -> dict[str, Any]:
    processor = build_processor(ways.MODEL_TYPE)
    processor.image_processor.size = LIMITS
    with tempfile.TemporaryDirectory() as folder:
        rows = list(draw_rows(Path(folder), pictures))
        cache = Path(folder) / "cache"
        measured = {
            "floor": ways.decode_and_resize(processor),
            "ours": ways.ours(processor),
            "ours_cached": ways.ours(processor, cache),
            "official": ways.processor_and_positions(processor),
            "trl": ways.trl(processor),
            "qwen_vl_utils": ways.qwen_vl_utils(processor),
        }
        first: dict[str, ways.Batch] = {}
        for name, way in measured.items():
            # Warms up every way and fills the cache.
            for batch in _micro_batches(rows):
                first.setdefault(name, way(batch))
        check_equal(processor, first)
        kept = [path.stat().st_size for path in cache.rglob("*") if path.is_file()]
        if len(kept) != pictures:
            raise SystemExit(
                f"Only {len(kept)} of {pictures} pictures were cached in {cache}: its disk is nearly full."
            )
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(rounds):
            for name, way in measured.items():
                start = time.process_time()
                for batch in _micro_batches(rows):
                    way(batch)
                seconds[name].append(time.process_time() - start)
        jpeg_bytes = statistics.mean(Path(row.picture).stat().st_size for row in rows)
    return {
        "job": {
            "pictures": pictures,
            "size": [WIDTH, HEIGHT],
            "jpeg_bytes": round(jpeg_bytes),
            "visual_tokens": TOKENS,
            "micro_batch": MICRO_BATCH,
            "rounds": rounds,
        },
        "samples_per_cpu_second": {
            name: round(pictures / statistics.median(taken), 1) for name, taken in seconds.items()
        },
        "ours_is_times": {
            name: round(statistics.median(np.divide(taken, seconds["ours"])), 2) for name, taken in seconds.items()
        },
        "bytes_to_device": {
            "ours": first["ours"]["planes"].nbytes,
            "pixel_values": first["official"]["pixel_values"].nbytes,
        },
        "cached_bytes_per_picture": kept[0],
    }


def _micro_batches(rows: list[ways.Row]) -> Iterator[list[ways.Row]]:
    for start in range(0, len(rows), MICRO_BATCH):
        yield rows[start : start + MICRO_BATCH]


def show(result: dict[str, Any]) -> None:
    table = Table("one core, micro-batches of 4", "samples/s", "ours is")
    for name, words in WORDS.items():
        rate, times = result["samples_per_cpu_second"][name], result["ours_is_times"][name]
        table.add_row(words, f"{rate:.0f}", "" if name == "ours" else f"{times:.2f} times as fast")
    console = Console()
    console.print(table)
    ours, floats = (result["bytes_to_device"][name] / 1e6 for name in ("ours", "pixel_values"))
    console.print(f"One micro-batch from worker to device: {ours:.1f} MB; as pixel_values {floats:.1f} MB,")
    console.print(f"{floats / ours:.1f} times as much.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=7, help="the median of so many counts")
    results.add_output(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(arguments.pictures, arguments.rounds)
    result |= results.surroundings(PACKAGES, ("cpu", "cores"), gpus=[])
    show(result)
    results.write(result, arguments.output)


if __name__ == "__main__":
    main()
