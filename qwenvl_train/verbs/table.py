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
    "train": VerbEntry("fine-tune a model (the default verb)", "qwenvl_train.config.verb:TRAIN"),
    "inspect": VerbEntry(
        "show what a run trains on: tokens, labels, images, videos, boxes, lengths",
        "qwenvl_train.verbs.inspect.settings:INSPECT",
    ),
    "plan": VerbEntry(
        "predict the steps, the memory of each device and the time of a run; needs no weights",
        "qwenvl_train.verbs.plan.settings:PLAN",
    ),
}


def load_verb(name: str) -> "Verb":
    return resolve_name(VERBS[name].verb)
