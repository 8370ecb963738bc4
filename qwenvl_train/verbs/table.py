"""The verbs of the command line. A new verb is a module or a package in this folder, and one entry here. Those in VERBS
take settings, and those in FOLDER_VERBS take a run folder.

Settings are imported only for the verb that runs, so that --help is quick.
"""

from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

from qwenvl_train.errors import UserError

if TYPE_CHECKING:
    from qwenvl_train.config.verb import Verb


class VerbEntry(NamedTuple):
    summary: str
    verb: str
    """Where the verb's `Verb` is, as module:name."""
    example: str
    """The rest of a command, as its help shows it."""


VERBS = {
    "train": VerbEntry("fine-tune a model (the default verb)", "qwenvl_train.config.verb:TRAIN", "+recipe=sft_lora"),
    "convert": VerbEntry(
        "write rows from the files of published data sets, such as COCO, OmniDocBench and AndroidControl",
        "qwenvl_train.verbs.convert.settings:CONVERT",
        "+task=grounding source=coco/instances_train.json to=boxes.jsonl",
    ),
    "inspect": VerbEntry(
        "show what a run trains on: tokens, labels, images, videos, boxes, lengths",
        "qwenvl_train.verbs.inspect.settings:INSPECT",
        "model=qwen2_5_vl_7b data.train=my.jsonl output=html",
    ),
    "eval": VerbEntry(
        "generate a model's answers to held-out samples, and score them",
        "qwenvl_train.verbs.eval.settings:EVAL",
        "run=runs/mine data.eval=held_out.jsonl",
    ),
    "sample": VerbEntry(
        "draw several answers to each row, and write those that are right as rows and as pairs to train on",
        "qwenvl_train.verbs.sample.settings:SAMPLE",
        "run=runs/mine data.train=my.jsonl",
    ),
    "plan": VerbEntry(
        "predict the steps, the memory of each device and the time of a run; needs no weights",
        "qwenvl_train.verbs.plan.settings:PLAN",
        "+recipe=sft_full model=qwen2_5_vl_7b data.train=my.jsonl deepspeed=zero2 plan.devices=8",
    ),
    "filter": VerbEntry(
        "leave out bad rows by rules: repeated, unfinished, malformed or nearly equal ones, unreadable images",
        "qwenvl_train.verbs.filter.settings:FILTER",
        "filter=strict data.train=my.jsonl",
    ),
    "export": VerbEntry(
        "write the model of a run as one model, or as an adapter for vLLM, and compare it with the run",
        "qwenvl_train.verbs.export.settings:EXPORT",
        "run=runs/mine",
    ),
    "chat": VerbEntry(
        "ask a trained model: on the terminal, once, for the rows of a file, or on a page",
        "qwenvl_train.verbs.chat.settings:CHAT",
        "run=runs/mine",
    ),
    "dashboard": VerbEntry(
        "make a W&B workspace for the runs of a project",
        "qwenvl_train.verbs.dashboard.settings:DASHBOARD",
        "logging.wandb.project=my_project",
    ),
}


class FolderVerb(NamedTuple):
    summary: str
    function: str
    """The function that carries out the verb, as module:name. It takes the paths of run folders."""
    several: bool = False
    """Whether it takes several run folders, instead of one."""
    settings: tuple[str, ...] = ()
    """The names of its settings. The function takes each as a text."""

    def example(self, name: str) -> str:
        return f"qwenvl-train {name} {'runs/a runs/b' if self.several else 'runs/mine'}"


FOLDER_VERBS = {
    "report": FolderVerb(
        "make report.html of a run folder again, also of a run that was killed", "qwenvl_train.verbs.report:run"
    ),
    "compare": FolderVerb(
        "compare runs: scores, settings that differ, curves on one page, answers that differ",
        "qwenvl_train.verbs.compare.command:run",
        several=True,
    ),
    "watch": FolderVerb(
        "serve the report of a run on 127.0.0.1, where it follows the run",
        "qwenvl_train.verbs.watch:run",
        settings=("port",),
    ),
}


def load_verb(name: str) -> "Verb":
    return resolve_name(VERBS[name].verb)


def run_on_folders(name: str, arguments: list[str]) -> None:
    """Carry out a verb that takes run folders, and settings of its own."""
    entry = FOLDER_VERBS[name]
    settings = {key: value for word in arguments for key, sign, value in [word.partition("=")] if sign}
    folders = [word for word in arguments if "=" not in word]
    wrong = len(folders) < 2 if entry.several else len(folders) != 1
    if wrong or not settings.keys() <= set(entry.settings) or any(word.startswith("-") for word in folders):
        given = f"got {' '.join(arguments)}" if arguments else "no folder is given"
        what = "two or more run folders" if entry.several else "a run folder"
        also = " and ".join(f"{setting}=…" for setting in entry.settings) or "nothing else"
        raise UserError(f"{name} takes {what} and {also}, such as {entry.example(name)}; {given}.")
    resolve_name(entry.function)(*map(Path, folders), **settings)
