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


VERBS = {
    "train": VerbEntry("fine-tune a model (the default verb)", "qwenvl_train.config.verb:TRAIN"),
    "inspect": VerbEntry(
        "show what a run trains on: tokens, labels, images, videos, boxes, lengths",
        "qwenvl_train.verbs.inspect.settings:INSPECT",
    ),
    "eval": VerbEntry(
        "generate a model's answers to held-out samples, and score them", "qwenvl_train.verbs.eval.settings:EVAL"
    ),
    "plan": VerbEntry(
        "predict the steps, the memory of each device and the time of a run; needs no weights",
        "qwenvl_train.verbs.plan.settings:PLAN",
    ),
    "export": VerbEntry(
        "write the model of a run as one model, or as an adapter for vLLM, and compare it with the run",
        "qwenvl_train.verbs.export.settings:EXPORT",
    ),
    "chat": VerbEntry(
        "ask a trained model: on the terminal, once, for the rows of a file, or on a page",
        "qwenvl_train.verbs.chat.settings:CHAT",
    ),
}


class FolderVerb(NamedTuple):
    summary: str
    function: str
    """The function that carries out the verb, as module:name. It takes the path of a run folder."""


FOLDER_VERBS = {
    "report": FolderVerb(
        "make report.html of a run folder again, also of a run that was killed", "qwenvl_train.verbs.report:run"
    ),
}


def load_verb(name: str) -> "Verb":
    return resolve_name(VERBS[name].verb)


def run_on_folder(name: str, arguments: list[str]) -> None:
    """Carry out a verb that takes a run folder, which must be its only argument."""
    if len(arguments) != 1 or "=" in arguments[0] or arguments[0].startswith("-"):
        given = f"got {' '.join(arguments)}" if arguments else "no folder is given"
        raise UserError(f"{name} takes a run folder and nothing else, such as qwenvl-train {name} runs/mine; {given}.")
    resolve_name(FOLDER_VERBS[name].function)(Path(arguments[0]))
