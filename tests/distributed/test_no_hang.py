"""No run hangs because of what a process meets: each kind of row meets each other kind, with every stage of DeepSpeed,
tower, method and reference.

Processes that run different modules would wait for each other for ever. All cases of two processes share one launch,
and so do those of three, which are the cases where a third process matters: weights and gradients that are sharded
unevenly, three kinds in one micro-step, a window in which one process has no row, and held-out rows that three do
not share evenly.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from qwenvl_train.data.order.order import Order
from tests.commands import read_lines, rows, summary, train
from tests.data.order.mixes import lengths_of, order_of
from tests.distributed.test_launch import SHARDED, WHERE, launch
from tests.videos import write_video

pytestmark = [pytest.mark.distributed, pytest.mark.nightly]

NOTHING = "nothing decodable"
KINDS = ("text", "image", "video", "image and video", NOTHING)
SEED = 42
ACCUMULATION = 4


@dataclass(frozen=True)
class Meetings:
    """The kinds of rows that processes have in each micro-step of an epoch, and that of one more row, so that the last
    window takes some of the next epoch."""

    launcher: str
    kinds: tuple[tuple[str, ...], ...]
    last: str

    @property
    def world(self) -> int:
        return len(self.kinds[0])

    @property
    def rows(self) -> int:
        return len(self.kinds) * self.world + 1

    def order(self) -> Order:
        return order_of(lengths_of(np.full(self.rows, 10)), world=self.world, batch_size=1, packing=False, seed=SEED)

    def kind_of_row(self) -> dict[int, str]:
        """The kind of each row, such that rows that meet are those of `kinds`."""
        order, found = self.order(), [kind for meeting in self.kinds for kind in meeting] + [self.last]
        return {int(order.row(place)[0]): kind for place, kind in enumerate(found)}

    def decoded(self) -> list[int]:
        """The number of rows that have been decoded after each step."""
        order, kinds, window = self.order(), self.kind_of_row(), ACCUMULATION * self.world
        steps = -(-self.rows // window)
        met = [kinds[int(order.row(place)[0])] != NOTHING for place in range(steps * window)]
        return [int(count) for count in np.cumsum(met)[window - 1 :: window]]


TWO = Meetings("deepspeed", tuple(product(KINDS, repeat=2)), "text")
# Each kind comes to each process. Of the last whole window, one process has nothing, and the others have one row each.
THREE = Meetings(
    "deepspeed on three",
    (
        *(kinds[turn % 3 :] + kinds[: turn % 3] for turn, kinds in enumerate(combinations(KINDS, 3))),
        (NOTHING, NOTHING, NOTHING),
        (NOTHING, "text", "image"),
        (NOTHING, "video", NOTHING),
        (NOTHING, NOTHING, NOTHING),
        (NOTHING, NOTHING, "text"),
        (NOTHING, NOTHING, NOTHING),
    ),
    "image",
)
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
ON_THREE = (
    "none frozen", "zero1 cached", "zero2 frozen", "zero3 trained", "zero3 frozen", "zero3 cached",
    "zero1 reference cached", "zero2 reference adapter", "zero3 reference model", "zero3 reference adapter",
)  # fmt: skip


@pytest.fixture(scope="module")
def media(pictures, tmp_path_factory) -> dict[str, tuple[dict, str]]:
    """The columns and the marks of a row of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    clip = write_video(folder / "clip.mp4", frames=8)
    broken = folder / "broken.png"
    broken.write_bytes(pictures[3].read_bytes()[:300])  # its header is whole
    return {
        "text": ({}, ""),
        "image": ({"images": [str(pictures[0])]}, "<image>"),
        "video": ({"videos": [str(clip)]}, "<video>"),
        "image and video": ({"images": [str(pictures[1])], "videos": [str(clip)]}, "<image><video>"),
        NOTHING: ({"images": [str(broken)]}, "<image>"),
    }


def write(meetings: Meetings, media: dict[str, tuple[dict, str]], folder: Path) -> None:
    """Write the rows for SFT and for DPO."""
    answered, preferred = [], []
    for index, kind in sorted(meetings.kind_of_row().items()):
        columns, marks = media[kind]
        asked = f"{marks}What? {index}"
        turns = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": "A red circle. " * (index % 4) + "."},
        ]
        answered.append({"messages": turns, **columns})
        preferred.append({"prompt": asked, "chosen": "Red.", "rejected": "No " * (index % 5) + "?", **columns})
    for name, lines in {"sft": answered, "dpo": preferred}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def settings(name: str, model: Path, folder: Path) -> list[str]:
    """Those of a case, but for the number of rows in a micro-batch and what several processes share."""
    _, _, way = name.partition(" ")
    method = "dpo" if way.startswith("reference") else "sft"
    words = REFERENCES[way.removeprefix("reference ")] if method == "dpo" else TOWERS[way]
    data = folder / f"{method}.jsonl"
    return [
        *words, f"model.path={model}", f"data.train={data}", f"data.eval={data}", f"seed={SEED}",
        "data.packing=false", "data.workers=0", "data.on_error=skip", f"train.accumulation={ACCUMULATION}",
        "train.epochs=1", "train.log_steps=1", "train.warmup=0", "train.eval_batch_size=3",
        "eval.generate=true", "eval.samples=null", "eval.max_new_tokens=3", "logging.predictions=0",
        "train.stall_seconds=240",
    ]  # fmt: skip


def launched(meetings: Meetings, names: Iterable[str], model: Path, folder: Path) -> Path:
    """A folder with a run of each case."""
    commands = []
    for name in names:
        stage = name.split()[0]
        commands.append([
            *settings(name, model, folder), "train.batch_size=1", f"deepspeed={stage}",
            *(SHARDED if stage == "zero3" else ()), f"data.cache={folder / 'cache'}", *WHERE,
            f"output_dir={folder / name}",
        ])  # fmt: skip
    (folder / "commands.json").write_text(json.dumps(commands), encoding="utf-8")
    launch(meetings.launcher, "tests.distributed.several", str(folder / "commands.json"))
    return folder


def on_two() -> list[str]:
    found = [*TOWERS, *(f"reference {name}" for name in REFERENCES)]
    refused = "zero3 reference cached"
    return [name for stage in STAGES for way in found if (name := f"{stage} {way}") != refused]


@pytest.fixture(scope="module")
def two(media, checkpoints, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    write(TWO, media, folder)
    return launched(TWO, on_two(), checkpoints["qwen2_5_vl"], folder)


@pytest.fixture(scope="module")
def three(media, checkpoints, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    write(THREE, media, folder)
    return launched(THREE, ON_THREE, checkpoints["qwen2_5_vl"], folder)


@pytest.fixture(scope="module")
def one(three, checkpoints) -> Callable[[str], Path]:
    """Trains in one process as three do, once for all stages."""

    @cache
    def run(way: str) -> Path:
        words = settings(f"none {way}", checkpoints["qwen2_5_vl"], three)
        return train(three / "one" / way, *words, "train.batch_size=3", f"data.cache={three / 'cache of one'}")

    return lambda name: run(name.partition(" ")[2])


def curve(run: Path) -> list[tuple]:
    return [(row["step"], row["samples"], row["loss"]) for row in rows(run)]


def assert_all_met(run: Path, meetings: Meetings) -> None:
    """As many samples have been decoded after each step as there are if the rows meet as planned."""
    assert summary(run)["status"] == "done"
    assert [samples for _, samples, _ in curve(run)] == meetings.decoded()
    broken = [kind for kind in meetings.kind_of_row().values() if kind == NOTHING]
    assert len({row["line"] for row in read_lines(run / "skipped.jsonl")}) == len(broken)


def assert_same_losses(mine: list[tuple], theirs: list[tuple], rel: float) -> None:
    assert [row[:2] for row in mine] == [row[:2] for row in theirs]
    assert [row[2] for row in mine] == pytest.approx([row[2] for row in theirs], rel=rel)


@pytest.mark.parametrize("name", on_two())
def test_every_row_meets_every_other(name, two):
    run = two / name / "run"
    assert_all_met(run, TWO)
    # The stages compute the same.
    assert_same_losses(curve(run), curve(two / f"zero1{name[5:]}" / "run"), rel=1e-4)


@pytest.mark.parametrize("name", ON_THREE)
def test_three_processes_meet_and_equal_one(name, three, one):
    run, alone = three / name / "run", one(name)
    assert_all_met(run, THREE)
    assert_same_losses(curve(run), curve(alone), rel=1e-5)  # measured 3.5e-7
    for mine, theirs in zip(rows(run, "eval_loss"), rows(alone, "eval_loss"), strict=True):
        assert mine["eval_samples"] == theirs["eval_samples"]
        assert mine["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-5)
