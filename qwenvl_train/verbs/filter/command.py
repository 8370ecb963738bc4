"""The verb filter. It judges the rows of data.train by rules, and writes those that are kept."""

import os
from functools import partial

from qwenvl_train.config.compose import Composed
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.stdout import print_json
from qwenvl_train.verbs.filter.figures import FilterFigures
from qwenvl_train.verbs.filter.filtering import Filtering
from qwenvl_train.verbs.filter.folder import FilterFolder
from qwenvl_train.verbs.filter.judged import UNUSABLE
from qwenvl_train.verbs.filter.page import PAGE
from qwenvl_train.verbs.filter.settings import FilterConfig
from qwenvl_train.verbs.filter.text import print_figures


def run(composed: Composed[FilterConfig]) -> None:
    config = composed.config
    if not config.filter.judged and os.environ.get("RANK", "0") != "0":
        return  # only the work of a model is shared by the processes of a launcher
    tell = partial(print, flush=True) if config.output == "text" else lambda line: None
    filtering = Filtering(config, tell)
    figures, folder = filtering.figures(), filtering.folder
    if figures is None or os.environ.get("RANK", "0") != "0":
        return
    if config.output == "text":
        print_figures(figures, folder)
    else:
        print_json({"folder": str(folder.path), **figures.as_dict()})
    if not figures.kept:
        raise UserError(_nothing_left(figures, folder))


def _nothing_left(figures: FilterFigures, folder: FilterFolder) -> str:
    unusable = next(rule for rule in figures.rules if rule.name == UNUSABLE)
    if unusable.falls == figures.rows:
        return f"filter: no row can be used; the first: {figures.first_unusable}"
    most = max((rule for rule in figures.rules if rule.drops), key=lambda rule: rule.falls)
    return (
        f"filter: no row is kept; {most.falls:,} of {figures.rows:,} fall to {most.name}. Raise its limits, or set "
        f"filter.{most.name}.use=mark; {folder.path / PAGE} shows the rows."
    )
