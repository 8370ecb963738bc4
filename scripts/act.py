"""Let a model do tasks on a simulated device: python scripts/act.py phone run=runs/mine [tasks=50] [seed=1]

The model sees the screen and what it has done, and its calls change the device, until it ends the task or has made 10
calls. A task is done if its goal is reached when the model says so. With browser=true, Chromium draws the screens
(apt install chromium, pip install playwright). All other words are those of `qwenvl-train chat`.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from PIL import Image
from samples.canvas import SvgCanvas, browser
from samples.desktop import Desktop
from samples.device import Action, Device
from samples.phone import Phone

from qwenvl_train.cli import prepare_environment
from qwenvl_train.config.compose import compose
from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Sample
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.metric import Picture, Question
from qwenvl_train.evaluation.metrics.tool_calls import Call, first_call
from qwenvl_train.families.agent_tools import AgentTool
from qwenvl_train.families.family import Family
from qwenvl_train.reporting.bar import counting
from qwenvl_train.tasks.agents.actions import described
from qwenvl_train.tasks.agents.steps import Step, asked, row_of_step
from qwenvl_train.tasks.converter import Prompts, RowOptions
from qwenvl_train.verbs.table import load_verb

if TYPE_CHECKING:
    from qwenvl_train.verbs.chat.model import ChatModel

DEVICES: dict[str, tuple[type[Device], str]] = {"phone": (Phone, "mobile_agent"), "desktop": (Desktop, "computer_use")}
"""The devices, and the tasks whose questions a model gets on them."""
Screen = Callable[[Device], Image.Image]
MOST_STEPS = 10
MOST_TOKENS = 96
AT_ONCE = 10
"""The devices whose next steps are computed together."""


@dataclass
class Attempt:
    """What a model does on a device."""

    number: int
    device: Device
    done: list[str] = field(default_factory=list)
    """The steps so far, in words."""
    ended: str = ""
    """How the task ended, or empty while it goes on."""

    def take(self, call: Call | None, size: tuple[int, int], family: Family) -> None:
        """Do what the model has called for."""
        if call is None:
            self.ended = "no call"
        elif call.type == "terminate":
            self.ended = "done" if self.device.is_reached() else "ended too early"
        else:
            self.device.act(_in_pixels(call, size, family, as_lists=True))
            self.done.append(_in_words(_in_pixels(call, size, family)))
            if len(self.done) == MOST_STEPS:
                self.ended = "too many steps"


def _in_words(action: Action) -> str:
    """Return an action in words, as the converters write those of data sets that have none."""
    try:
        return described(action)
    except (KeyError, TypeError):  # a model can leave out arguments, or write others
        return str(action["action"])


def _in_pixels(call: Call, size: tuple[int, int], family: Family, as_lists: bool = False) -> Action:
    """Return the arguments of a call with points in pixels of the screen, in the form of rows or as lists."""
    width, height = size
    question = Question(family=family, picture=Picture((height, width), (height, width)))
    action: Action = {"action": call.type, **call.arguments}
    for key in ("coordinate", "coordinate2"):
        if (point := call.point(key, question)) is not None:
            pixels = [point[0] * width, point[1] * height]
            action[key] = pixels if as_lists else {"point_2d": pixels}
    return action


def _drawn(device: Device) -> Image.Image:
    image, _ = device.draw()
    return image


@contextmanager
def _screens(by_browser: bool) -> Iterator[Screen]:
    """Yield a function that returns the screen of a device."""
    if not by_browser:
        yield _drawn
        return
    with browser() as shown:

        def screen(device: Device) -> Image.Image:
            canvas = SvgCanvas(device.size)
            device.draw_on(canvas)
            return shown(canvas.page, device.size)

        yield screen


def run(
    attempts: Sequence[Attempt], model: "ChatModel", options: RowOptions, tool: AgentTool, screen: Screen = _drawn
) -> None:
    """Do the tasks, some of them at a time."""
    with TemporaryDirectory() as folder, counting("Tasks", len(attempts), tell=_tell) as ended:
        while going := [attempt for attempt in attempts if not attempt.ended]:
            some = going[:AT_ONCE]
            samples = [_question(attempt, screen(attempt.device), options, tool, Path(folder)) for attempt in some]
            said = model.decode([model.renderer.render(sample) for sample in samples], MOST_TOKENS)
            for attempt, piece in zip(some, said, strict=True):
                attempt.take(first_call(piece.text), attempt.device.size, model.family)
            ended(sum(bool(attempt.ended) for attempt in attempts))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _question(attempt: Attempt, image: Image.Image, options: RowOptions, tool: AgentTool, folder: Path) -> Sample:
    path = folder / f"{attempt.number}-{len(attempt.done)}.png"
    image.save(path)
    key = f"{attempt.number}/{len(attempt.done)}"
    # The answer of a row is left out of its question.
    step = Step(path, ({"action": "terminate", "status": "success"},))
    row = row_of_step(key, step, tool, options, asked(key, attempt.device.goal, attempt.done, options))
    locator = Locator(folder, fenced=False, allow_remote=False, cache=folder)
    return to_sample(row, str(folder), attempt.number, locator, "auto").question


def main(words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return
    if not words or words[0] not in DEVICES:
        raise SystemExit(f"{__doc__}\nName a device first: {' or '.join(DEVICES)}.")
    prepare_environment("chat")  # before the libraries are imported, so that they are quiet
    from qwenvl_train.model.pretrained import load_family
    from qwenvl_train.run.finished import with_checkpoint
    from qwenvl_train.verbs.chat.model import open_model

    device_class, task = DEVICES[words[0]]
    own = {"tasks": "50", "seed": "1", "browser": "false"}
    own |= dict(word.split("=", 1) for word in words[1:] if word.partition("=")[0] in own)
    others = [word for word in words[1:] if word.partition("=")[0] not in own]
    try:
        convert = compose([f"+task={task}", "source=none", "to=none.jsonl"], load_verb("convert")).config.convert
        config = with_checkpoint(compose(others, load_verb("chat")).config)
        model = open_model(config, load_family(config.model))
    except UserError as error:
        raise SystemExit(str(error)) from None
    options = RowOptions(Prompts(convert.prompts_of("call")), "call", system=convert.system_of("call"))
    rng = random.Random(f"{words[0]} {own['seed']}")
    attempts = [Attempt(number, device_class(rng)) for number in range(int(own["tasks"]))]
    with _screens(own["browser"] == "true") as screen:
        run(attempts, model, options, device_class.tool, screen)
    _show(attempts)


def _show(attempts: Sequence[Attempt]) -> None:
    """Print what became of each task, and how many ended in which way."""
    for attempt in attempts:
        print(f"{attempt.number + 1}. {attempt.device.goal}: {attempt.ended} ({'; '.join(attempt.done) or 'no step'})")
    for ended, count in Counter(attempt.ended for attempt in attempts).most_common():
        print(f"{ended}: {count} of {len(attempts)}")


if __name__ == "__main__":
    main(sys.argv[1:])
