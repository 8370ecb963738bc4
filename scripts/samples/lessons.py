"""What the checkpoint of the sample sets is taught: questions about drawings, with answers in plain forms."""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image

from samples.clip import frames, plan_clip
from samples.desktop import Desktop
from samples.device import Device
from samples.drawing import NAMES, PARTS, WORDS, Box, Size
from samples.page import draw_page
from samples.phone import Phone
from samples.receipt import draw_receipt
from samples.scene import Thing, draw_scene

Turn = dict[str, Any]
FPS = 2
"""Frames of a clip that the model sees in a second."""
NEAR = 50
"""The greatest difference of a number to the right one, in thousandths of the image."""


_PLACE = re.compile(r"\[[\d, ]+\]")
ASKING = ("{}.", "{}", "The user query: {}.", "Instruction: {}", "Next: {}.")
"""How one is asked for an action on a device."""
DONE = ("Press Home", "Press Back", "Swipe left", "Swipe right", "Click", "Double-click", "Scroll", "Type")
BEFORE = ("", "", "", "\nDone so far: {}.", "\nBefore: {}.", "\nSteps: {}")
"""What follows the question, with some of the steps that may have been done."""
ASKED_FIRST = 0.6
"""The share of lessons about devices with the question before the screen, as in the prompt of mobile_agent."""
FEW = 3
"""How many things are told with their boxes at most."""


class Exchange(NamedTuple):
    """A question of a lesson, and its answer."""

    question: str
    answer: str | dict[str, Any]
    """A text, or the arguments of a call of the tool."""
    box: Box | None = None
    """Where in the image that is which the answer is about, if it is about one thing."""
    copied: str = ""
    """The part of the answer that is copied from the question."""


@dataclass(frozen=True)
class Lesson:
    medium: Image.Image | list[Image.Image] | None
    """An image, the frames of a clip, or nothing."""
    exchanges: Sequence[Exchange]
    tool: str | None = None
    near: int = 0
    """The greatest difference of a number in a right answer."""
    is_asked_first: bool = False
    """Whether the first question comes before the medium."""

    @property
    def turns(self) -> list[Turn]:
        turns = []
        for one in self.exchanges:
            turns += [_user(one.question), _assistant(one.answer, self.tool)]
        return self._with_medium(turns)

    @property
    def first_question(self) -> list[Turn]:
        return self._with_medium([_user(self.exchanges[0].question)])

    def _with_medium(self, turns: list[Turn]) -> list[Turn]:
        if self.medium is None:
            return turns
        part = {"type": "video" if isinstance(self.medium, list) else "image"}
        question = turns[0]["content"]
        content = [*question, part] if self.is_asked_first else [part, *question]
        return [{"role": "user", "content": content}, *turns[1:]]

    def is_right(self, said: str) -> bool:
        """Return whether an answer to the first question is right."""
        answer = self.exchanges[0].answer
        if isinstance(answer, dict):
            call = re.search(r"<tool_call>\s*(\{.*\})\s*</tool_call>", said, re.DOTALL)
            said = call[1] if call else ""
            answer = json.dumps({"name": self.tool, "arguments": answer})
        given, right = _numbers(said), _numbers(answer)
        same_text = _PLACE.sub("[]", said) == _PLACE.sub("[]", answer) and len(given) == len(right)
        return same_text and all(abs(one - other) <= self.near for one, other in zip(given, right, strict=True))


def _numbers(text: str) -> list[int]:
    """Return the numbers of the places in a text."""
    return [int(number) for place in _PLACE.findall(text) for number in re.findall(r"\d+", place)]


def _user(question: str) -> Turn:
    return {"role": "user", "content": [{"type": "text", "text": question}]}


def _assistant(answer: str | dict[str, Any], tool: str | None) -> Turn:
    if isinstance(answer, str):
        return {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": tool, "arguments": answer}}]}


def few_things(rng: random.Random) -> Lesson:
    return things(rng, most=2)


def things(rng: random.Random, most: int = 99) -> Lesson:
    """Ask where things are, what is at a place, and what there is."""
    image, found = draw_scene(rng, most)
    turns = []
    for thing in rng.sample(found, min(4, len(found))):
        point = json.dumps(_point(thing.box, image.size))
        if rng.random() < 0.15:
            turns.append(Exchange(f"What is at {point}?", thing.name, thing.box))
        elif sum(other.name == thing.name for other in found) == 1:
            turns.append(Exchange(f"Where is {thing.name}?", point, thing.box))
    # The JSON of more boxes would be too long for so small a model to learn from.
    whole = rng.choice((_boxes, _boxes, _points, _names) if len(found) <= FEW else (_points, _names))
    turns.append(whole(found, image.size))
    return Lesson(image, rng.sample(turns, len(turns)), near=NEAR)


def _boxes(found: Sequence[Thing], size: Size) -> Exchange:
    rows = [f'\t{{"bbox_2d": {json.dumps(_thousandths(one.box, size))}, "label": "{one.name}"}}' for one in found]
    return Exchange("Find all.", "```json\n[\n" + ",\n".join(rows) + "\n]\n```")


def _points(found: Sequence[Thing], size: Size) -> Exchange:
    return Exchange("List all.", "\n".join(f"{json.dumps(_point(one.box, size))} {one.name}" for one in found))


def _names(found: Sequence[Thing], size: Size) -> Exchange:
    return Exchange("Name all.", "\n".join(one.name for one in found))


def text(rng: random.Random) -> Lesson:
    """Ask for the text of a page or a receipt, where its lines are, and what a receipt tells."""
    if rng.random() < 0.5:
        image, elements = draw_page(rng)
        lines = [(one.get("text") or _cells(one.get("html", "")), one["box"]) for one in elements]
        told = []
    else:
        image, lines, fields = draw_receipt(rng)
        told = [Exchange("What is the total?", fields["total"]), Exchange("What is the company?", fields["company"])]
    lines = [(line, box) for line, box in lines if line]
    turns = [Exchange("Read the text.", "\n".join(line for line, _ in lines)), *told]
    for line, box in rng.sample(lines, min(2, len(lines))):
        turns.append(Exchange(f"Where is the text {line}?", json.dumps(_thousandths(box, image.size)), box))
    return Lesson(image, rng.sample(turns, len(turns)), near=NEAR)


def _cells(html: str) -> str:
    return " ".join(re.findall(r"<td>(.*?)</td>", html))


def clip(rng: random.Random) -> Lesson:
    """Ask when a shape is shown in a clip."""
    seconds, shown = plan_clip(rng)
    turns = [
        Exchange(f"When is {one.name} shown?", f"Begins at {one.start}, ends at {one.end}")
        for one in rng.sample(shown, len(shown))
    ]
    return Lesson(frames(seconds, shown, FPS), turns)


def repeat(rng: random.Random) -> Lesson:
    """Ask to repeat texts that have the notations of the sample sets. Adapters cannot teach a model tokens that it has
    never seen, nor to copy the words of a question."""
    word, other, cell, *_ = words = rng.sample(WORDS, 4)
    name, numbers = rng.choice(NAMES), [rng.randint(0, 99) * 10 for _ in range(4)]
    box, point = f'data-bbox="{" ".join(map(str, numbers))}"', numbers[:2]
    start, end = (f"00:0{number // 100}.00" for number in numbers[:2])
    texts = (
        f"<h1 {box}>{word}</h1>",
        f"<p {box}>{word} {other}</p>",
        f'<div class="image" {box}><img {box}/></div>',
        f'<table {box} class="table1"><tr><td>{word}</td><td>{other}</td></tr><tr><td>{cell}</td></tr></table>',
        f"```html\n<html><body>\n{word}\n</body></html>\n```",
        f'```json\n{{\n  "company": "{word.upper()}",\n  "total": "{numbers[0]}"\n}}\n```',
        f'{{\n    "{start} - {end}": "A shape is shown: {name}."\n}}',
        f'{{"action": "type", "text": "{word}"}}',
        f'{{"action": "click", "coordinate": {point}}}',
        f"Write {word} in the {name}",
        f"Choose {word} in the {name}",
        f"Open the {name}",
        " ".join(words),
        " ".join(rng.sample(PARTS, 3)),
    )
    return Lesson(None, [Exchange(f"Repeat: {text}", text, copied=text) for text in rng.sample(texts, 2)])


def screen(rng: random.Random) -> Lesson:
    """Ask where things are on the screen of a device, and what is open."""
    device = _in_use(rng.choice((Phone, Desktop)), rng)
    image, boxes = device.draw()
    turns = [
        Exchange(f"Where is {name}?", json.dumps(_point(boxes[name], image.size)), boxes[name])
        for name in rng.sample(list(boxes), min(4, len(boxes)))
    ]
    if device.open:
        name = device.open if rng.random() < 0.5 else rng.choice(NAMES)
        turns.append(Exchange(f"Is {name} open?", "yes" if name == device.open else "no"))
        turns.append(Exchange("What is open?", device.open))
    return _device_lesson(rng, image, turns)


def phone(rng: random.Random) -> Lesson:
    return _call(rng, Phone)


def desktop(rng: random.Random) -> Lesson:
    return _call(rng, Desktop)


def _in_use(device_class: type[Device], rng: random.Random) -> Device:
    """Return a device on which some steps towards its goal are done."""
    device = device_class(rng)
    for _ in range(rng.randrange(6)):
        device.act(device.next_action())
    return device


def _call(rng: random.Random, device_class: type[Device]) -> Lesson:
    """Ask for one action on a device, which is named. The goal of the device is not asked for."""
    device = _in_use(device_class, rng)
    image, boxes = device.draw()
    turns: list[Exchange] = []
    for name in rng.sample(list(boxes), min(2, len(boxes))):
        words, action = rng.choice(device.clicks)
        article = "" if rng.random() < 0.3 else "the "
        click = {"action": action, "coordinate": _point(boxes[name], image.size)}
        turns.append(Exchange(f"{words} {article}{name}", click, boxes[name]))
    word = rng.choice(WORDS)
    where = f" in the {device.open}" if device.open and rng.random() < 0.7 else ""
    typing = Exchange(f"Write {word}{where}", {"action": "type", "text": word}, copied=word)
    turns.append(typing if rng.random() < 0.4 else Exchange(*rng.choice(device.moves)))
    turns = [one._replace(question=rng.choice(ASKING).format(one.question) + _done(rng)) for one in turns]
    return _device_lesson(rng, image, turns, device.tool)


def _done(rng: random.Random) -> str:
    steps = [f"{number}. {step}" for number, step in enumerate(rng.sample(DONE, rng.randrange(4)), start=1)]
    return rng.choice(BEFORE).format("; ".join(steps))


def _device_lesson(
    rng: random.Random, image: Image.Image, turns: Sequence[Exchange], tool: str | None = None
) -> Lesson:
    return Lesson(image, rng.sample(turns, len(turns)), tool, NEAR, rng.random() < ASKED_FIRST)


def _thousandths(box: Box, size: Size) -> list[int]:
    """Return a box in thousandths of the image. They are multiples of ten: such small images do not tell the last
    digit, and a model that has to guess it learns the others more slowly."""
    return [round(100 * at / side) * 10 for at, side in zip(box, (*size, *size), strict=True)]


def _point(box: Box, size: Size) -> list[int]:
    x1, y1, x2, y2 = _thousandths(box, size)
    return [(x1 + x2) // 20 * 10, (y1 + y2) // 20 * 10]


@dataclass(frozen=True)
class Kind:
    draw: Callable[[random.Random], Lesson]
    weight: float
    """How often there is a step of such lessons, relative to the others."""
    batch: int
    """The lessons of a step."""
    begins: float = 0.0
    """The share of the steps before the first of these lessons."""
    ends: float = 1.0
    """The share of the steps before the last of them."""


LESSONS = {
    "few things": Kind(few_things, 4, 16, ends=0.35),
    "things": Kind(things, 4, 12, begins=0.2),
    "screen": Kind(screen, 2, 12, begins=0.2),
    "text": Kind(text, 2, 12, begins=0.25),
    "clip": Kind(clip, 1.5, 12, begins=0.25),
    "repeat": Kind(repeat, 1, 16, begins=0.25),
    "phone": Kind(phone, 0.7, 4, begins=0.5),
    "desktop": Kind(desktop, 0.7, 4, begins=0.5),
}

CALLS = {
    "few things": Kind(few_things, 0.5, 16),
    "things": Kind(things, 0.4, 12),
    "screen": Kind(screen, 0.4, 12),
    "text": Kind(text, 0.7, 12),
    "clip": Kind(clip, 0.7, 12),
    "repeat": Kind(repeat, 0.3, 16),
    "phone": Kind(phone, 1, 4),
    "desktop": Kind(desktop, 1, 4),
}
"""The last lessons, of which most are calls. The schema of a tool makes them long, so that they come last."""
