"""Draw the sample set of each task, in a format that people have."""

import csv
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from shapes import COLOURS, SHAPES, draw_picture

from samples.clip import frames, plan_clip, write_clip
from samples.desktop import Desktop
from samples.device import Action, Device
from samples.drawing import NAMES, PARTS, Box, Shape, blank, scatter
from samples.page import draw_page
from samples.phone import Phone
from samples.receipt import draw_receipt

ALIASES = {"disc": ["coin"], "plate": ["tile"], "washer": ["seal"]}
Drawing = TypeVar("Drawing", bound=tuple[Any, ...])
SCENE = 128, 128
RADII = 13, 20


class Fresh:
    """Draws images that were not drawn before."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._seen: set[bytes] = set()

    def __call__(self, draw: Callable[[random.Random], Drawing]) -> Drawing:
        """Return what a function draws, whose first part is the image."""
        while (drawn := draw(self.rng))[0].tobytes() in self._seen:
            pass
        self._seen.add(drawn[0].tobytes())
        return drawn


@dataclass(frozen=True)
class SampleSet:
    counts: dict[str, int]
    """How many images, or clips or episodes, there are in the training and in the evaluation. Of parts, how many of
    each shape and colour."""
    draw: Callable[[Path, str, int, "Fresh"], Path]
    """Draw a split into a folder, and return the file or folder that is to be converted."""
    words: tuple[str, ...] = ()
    """Further words of the command that converts it."""


def draw_recognition(folder: Path, split: str, count: int, fresh: Fresh) -> Path:
    """Draw parts, and a table that names them."""
    table = []
    for number, (colour, shape) in enumerate(list(product(COLOURS, SHAPES)) * count):
        image, *_ = fresh(partial(_part, colour=colour, shape=shape))
        name = f"images/{split}-{number:03}.png"
        image.save(folder / name, optimize=True)
        label = PARTS[SHAPES.index(shape)]
        table.append((name, label, "|".join(ALIASES.get(label, ()))))
    fresh.rng.shuffle(table)
    source = folder / f"{split}.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "label", "aliases"), *table])
    return source


def _part(rng: random.Random, colour: str, shape: str) -> tuple[Image.Image]:
    return (draw_picture(rng, colour, shape).image,)


def draw_grounding(folder: Path, split: str, count: int, fresh: Fresh) -> Path:
    """Draw scenes of parts, and their boxes as COCO has them."""
    images, annotations = [], []
    for number in range(count):
        image, shapes = fresh(_scene)
        name = f"images/{split}-{number:03}.png"
        for shape in shapes:
            annotations.append(_annotation(shape, number, len(annotations)))
        image.save(folder / name, optimize=True)
        images.append({"id": number, "file_name": name, "width": SCENE[0], "height": SCENE[1]})
    categories = [{"id": number, "name": label} for number, label in enumerate(PARTS, start=1)]
    return _write(folder / f"{split}.json", {"images": images, "annotations": annotations, "categories": categories})


def _scene(rng: random.Random) -> tuple[Image.Image, list[Shape]]:
    image, canvas = blank(SCENE)
    shapes = list(scatter(rng, rng.sample(NAMES, rng.choice((1, 2))), SCENE, RADII))
    for shape in shapes:
        shape.draw(canvas)
    return image, shapes


def _annotation(shape: Shape, image: int, number: int) -> dict[str, Any]:
    x1, y1, x2, y2 = shape.box
    category = SHAPES.index(shape.name.split()[1]) + 1
    box = [x1, y1, x2 - x1, y2 - y1]
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}


def draw_documents(folder: Path, split: str, count: int, fresh: Fresh) -> Path:
    """Draw pages, and their elements in our layout JSON."""
    pages = []
    for number in range(count):
        image, elements = fresh(draw_page)
        name = f"images/{split}-{number:03}.png"
        image.save(folder / name, optimize=True)
        pages.append({"id": f"{split}-{number:03}", "image": name, "elements": elements})
    return _write_lines(folder / f"{split}.layout.jsonl", pages)


def draw_ocr(folder: Path, split: str, count: int, fresh: Fresh) -> Path:
    """Draw receipts, and their lines and key information in the folders of SROIE."""
    for kind in ("img", "box", "entities"):
        (folder / split / kind).mkdir(parents=True)
    for number in range(count):
        image, lines, fields = fresh(draw_receipt)
        name = f"{split}-{number:03}"
        image.save(folder / split / "img" / f"{name}.png", optimize=True)
        text = "".join(f"{_corners(box)},{line}\n" for line, box in lines)
        (folder / split / "box" / f"{name}.txt").write_text(text, encoding="utf-8")
        _write(folder / split / "entities" / f"{name}.txt", fields)
    return folder / split


def _corners(box: Box) -> str:
    x1, y1, x2, y2 = box
    return ",".join(map(str, (x1, y1, x2, y1, x2, y2, x1, y2)))


def draw_video(folder: Path, split: str, count: int, fresh: Fresh) -> Path:
    """Draw clips, and the times of their events as in ActivityNet Captions."""
    found = {}
    for number in range(count):
        seconds, shown = plan_clip(fresh.rng)
        name = f"clips/{split}-{number:03}"
        write_clip(folder / f"{name}.mp4", frames(seconds, shown))
        times = [[one.start, one.end] for one in shown]
        found[name] = {"duration": seconds, "timestamps": times, "sentences": [one.sentence for one in shown]}
    return _write(folder / f"{split}.json", found)


def draw_mobile_agent(folder: Path, split: str, count: int, fresh: Fresh) -> Path:
    """Do tasks on the simulated phone, and write them down as the JSON of AndroidControl."""
    episodes = []
    for number in range(count):
        device = Phone(fresh.rng)
        key = f"{split}-{number:03}"
        names, actions = zip(*_steps(device, folder, key), strict=True)
        done = [_android(action) for action in actions[:-1]]  # the last one, terminate, is the converter's
        record = {"episode_id": key, "goal": device.goal, "screenshot_path": names, "actions": done}
        episodes.append(record | {"step_instructions": [None] * len(done)})
    return _write_lines(folder / f"{split}.episodes.jsonl", episodes)


def _android(action: Action) -> dict[str, Any]:
    match action:
        case {"action": "click", "coordinate": [x, y]}:
            return {"action_type": "click", "x": x, "y": y}
        case {"action": "swipe", "coordinate": [x1, _], "coordinate2": [x2, _]}:
            return {"action_type": "scroll", "direction": "right" if x2 < x1 else "left"}  # of the content
        case {"action": "type", "text": text}:
            return {"action_type": "input_text", "text": text}
    return {"action_type": "navigate_home"}


def draw_computer_use(folder: Path, split: str, count: int, fresh: Fresh) -> Path:
    """Do tasks on the simulated desktop, and write them down as AgentNet does."""
    episodes = []
    for number in range(count):
        device = Desktop(fresh.rng)
        key = f"{split}-{number:03}"
        traj = [
            {"image": name, "value": {"code": _code(action, device)}} for name, action in _steps(device, folder, key)
        ]
        episodes.append({"task_id": key, "instruction": device.goal, "traj": traj})
    return _write_lines(folder / f"{split}.episodes.jsonl", episodes)


def _code(action: Action, device: Device) -> str:
    match action:
        case {"action": "double_click" | "left_click" as kind, "coordinate": [x, y]}:
            name = {"double_click": "doubleClick", "left_click": "click"}[kind]
            return f"pyautogui.{name}(x={x / device.size[0]:.4f}, y={y / device.size[1]:.4f})"
        case {"action": "scroll", "pixels": pixels}:
            return f"pyautogui.scroll({pixels})"
    return "computer.terminate(status='success')"


def _steps(device: Device, folder: Path, key: str) -> Iterator[tuple[str, Action]]:
    """Yield the screenshot's file and the action of each step, up to the goal."""
    number = 0
    while True:
        number += 1
        image, _ = device.draw()
        name = f"images/{key}-{number}.png"
        image.save(folder / name, optimize=True)
        action = device.next_action()
        yield name, action
        if action["action"] == "terminate":
            return
        device.act(action)


def _write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")
    return path


def _write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


SAMPLE_SETS = {
    "recognition": SampleSet({"train": 16, "eval": 4}, draw_recognition),
    "grounding": SampleSet({"train": 480, "eval": 60}, draw_grounding),
    "documents": SampleSet({"train": 480, "eval": 40}, draw_documents),
    "ocr": SampleSet({"train": 480, "eval": 60}, draw_ocr, ("convert.form=fields",)),
    "video": SampleSet({"train": 240, "eval": 30}, draw_video, ("convert.form=clock_by_event",)),
    "mobile_agent": SampleSet({"train": 120, "eval": 20}, draw_mobile_agent),
    "computer_use": SampleSet({"train": 120, "eval": 20}, draw_computer_use),
}
