"""No run hangs because of what a process meets: each kind of row meets each other kind, with every stage of DeepSpeed,
tower, method and reference.

Processes that run different modules would wait for each other for ever. All cases share one launch.
"""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.commands import read_lines, rows, summary
from tests.data.order.mixes import lengths_of, order_of
from tests.distributed.test_launch import SHARDED, WHERE, launch
from tests.videos import write_video

pytestmark = [pytest.mark.distributed, pytest.mark.nightly]

KINDS = ("text", "image", "video", "image and video", "nothing decodable")
MEETINGS = list(product(KINDS, repeat=2))
"""The kinds of the rows of the two processes in each micro-step."""
SEED = 42
STAGES = ("zero1", "zero2", "zero3")
TOWERS = {
    "trained": ("+recipe=sft_full",),
    "frozen": ("+recipe=sft_lora",),
    "cached": ("+recipe=sft_lora", "train.cache_vision=true"),
}
REFERENCES = {
    "adapter": ("+recipe=dpo_lora", "dpo.reference=adapter"),
    "model": ("+recipe=dpo_full", "dpo.reference=model"),
    "cached": ("+recipe=dpo_lora", "dpo.reference=cached"),
    "none": ("+recipe=dpo_full", "dpo.reference=none"),
}
ODD = 2 * len(MEETINGS) + 1
"""The number of rows, so that the last window has fewer micro-batches, and not the same on both processes."""


def kinds_in_order() -> dict[int, str]:
    """The kind of each row, such that rows that meet are those of MEETINGS."""
    order = order_of(lengths_of(np.full(ODD, 10)), world=2, batch_size=1, packing=False, seed=SEED)
    found = [kind for meeting in MEETINGS for kind in meeting] + ["text"]
    return {int(order.row(place)[0]): kind for place, kind in enumerate(found)}


@pytest.fixture(scope="module")
def data(pictures, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    clip = write_video(folder / "clip.mp4", frames=8)
    broken = folder / "broken.png"
    broken.write_bytes(pictures[3].read_bytes()[:300])  # its header is whole
    media = {
        "text": ({}, ""),
        "image": ({"images": [str(pictures[0])]}, "<image>"),
        "video": ({"videos": [str(clip)]}, "<video>"),
        "image and video": ({"images": [str(pictures[1])], "videos": [str(clip)]}, "<image><video>"),
        "nothing decodable": ({"images": [str(broken)]}, "<image>"),
    }
    kinds = kinds_in_order()
    answered, preferred = [], []
    for index in range(ODD):
        columns, marks = media[kinds[index]]
        asked = f"{marks}What? {index}"
        turns = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": "A red circle. " * (index % 4) + "."},
        ]
        answered.append({"messages": turns, **columns})
        preferred.append({"prompt": asked, "chosen": "Red.", "rejected": "No " * (index % 5) + "?", **columns})
    for name, lines in {"sft": answered, "dpo": preferred}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {name: folder / f"{name}.jsonl" for name in ("sft", "dpo")}


def cases() -> dict[str, tuple[str, ...]]:
    found = {f"{stage} {tower}": words for stage in STAGES for tower, words in TOWERS.items()}
    return found | {
        f"{stage} reference {name}": words
        for stage in STAGES
        for name, words in REFERENCES.items()
        if (stage, name) != ("zero3", "cached")  # refused
    }


@pytest.fixture(scope="module")
def folder(data, checkpoints, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    commands = []
    for name, words in cases().items():
        stage, method = name.split()[0], "dpo" if "reference" in name else "sft"
        commands.append([
            *words, f"model.path={checkpoints['qwen2_5_vl']}",
            f"data.train={data[method]}", f"data.eval={data[method]}",
            f"seed={SEED}", "data.packing=false", "data.workers=0", "data.on_error=skip", "train.batch_size=1",
            "train.accumulation=4", "train.epochs=1", "train.log_steps=1", "train.warmup=0", "train.eval_batch_size=3",
            "eval.generate=true", "eval.samples=null", "eval.max_new_tokens=3", "logging.predictions=0",
            "train.stall_seconds=240", f"data.cache={folder / 'cache'}", f"deepspeed={stage}",
            *(SHARDED if stage == "zero3" else ()), *WHERE, f"output_dir={folder / name}",
        ])  # fmt: skip
    (folder / "commands.json").write_text(json.dumps(commands), encoding="utf-8")
    launch("deepspeed", "tests.distributed.several", str(folder / "commands.json"))
    return folder


@pytest.mark.parametrize("name", cases())
def test_every_row_meets_every_other(name, folder):
    run = folder / name / "run"
    assert summary(run)["status"] == "done"
    curve = [(row["step"], row["samples"], row["loss"]) for row in rows(run)]
    # As many samples have been decoded after each step as there are if the rows meet as planned.
    kinds = kinds_in_order()
    decoded = np.cumsum([kind != "nothing decodable" for kind in kinds.values()])
    assert [row[1] for row in curve] == [decoded[min(8 * step, ODD) - 1] for step in range(1, len(curve) + 1)]
    assert len(curve) == -(-ODD // 8)
    assert len({row["line"] for row in read_lines(run / "skipped.jsonl")}) == 10
    # The stages compute the same.
    same = [(row["step"], row["samples"], row["loss"]) for row in rows(folder / f"zero1{name[5:]}" / "run")]
    assert [row[:2] for row in curve] == [row[:2] for row in same]
    assert [row[2] for row in curve] == pytest.approx([row[2] for row in same], rel=1e-4)
