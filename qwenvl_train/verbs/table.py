"""The verbs of the command line. A new verb is a module or a package in this folder, and one entry here.

Settings are imported only for the verb that runs, so that --help is quick.
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from qwenvl_train.config.verb import Verb


class VerbEntry(NamedTuple):
    summary: str
    verb: str
    """Where the verb's `Verb` is, as module:name."""


VERBS = {
    "train": VerbEntry("fine-tune a model (this verb may be left out)", "qwenvl_train.config.verb:TRAIN"),
    "inspect": VerbEntry(
        "show what the model will be trained on: tokens, labels, pictures, clips, boxes, lengths",
        "qwenvl_train.verbs.inspect.settings:INSPECT",
    ),
    "plan": VerbEntry(
        "tell what a run will take, before it: steps, memory of each device, arithmetic, time; needs no weights",
        "qwenvl_train.verbs.plan.settings:PLAN",
    ),
}


def load_verb(name: str) -> "Verb":
    return resolve_name(VERBS[name].verb)
