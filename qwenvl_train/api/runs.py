"""A run from Python: the same settings, data, model and trainer as those of the command."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwenvl_train.config import compose as composing
from qwenvl_train.config.compose import Composed
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.sources.finding import refuse_missing
from qwenvl_train.errors import UserError
from qwenvl_train.verbs.table import load_verb

if TYPE_CHECKING:
    from qwenvl_train.run.opening import OpenedRun
    from qwenvl_train.run.training_run import Run


def compose(arguments: Sequence[str], verb: str = "train") -> Composed:
    """Compose and check a configuration from the arguments of the command line, such as
    `["+recipe=sft_lora", "train.max_steps=100"]`.

    Returns:
        The checked settings as `config`, together with the name of the `recipe`.

    Raises:
        UserError: If something is wrong with the arguments. The message names every problem.
    """
    return composing.compose(list(arguments), load_verb(verb))


def open_run(composed: Composed[RunConfig]) -> "OpenedRun":
    """Read and check the data of a run and load its processor, without reading any weights.

    Raises:
        UserError: If the data, the checkpoint or the settings cannot be used.
    """
    refuse_missing(composed.config.data)
    from qwenvl_train.model.pretrained import load_family
    from qwenvl_train.run import opening
    from qwenvl_train.training.distributed.processes import choose_precision, join_processes

    config = composed.config
    state = join_processes(config)
    folder = opening.run_folder(composed, state)
    return opening.open_run(composed, folder, load_family(config.model), choose_precision(config), state)


def prepare(composed: Composed[RunConfig]) -> "Run":
    """Read and check the data, load the model, and return a run that is ready for its first step.

    Nothing is written to the run folder before `Run.train()` is called. A run whose folder has checkpoints continues
    from the newest one, as `train.resume` says.

    Raises:
        UserError: If the data, the checkpoint or the settings cannot be used, or if the run is finished.
    """
    opened = open_run(composed)
    from qwenvl_train.run import preparing

    if opened.is_finished:
        raise UserError(f"run_name={opened.start.folder.name}: this run is finished; choose another run_name.")
    return preparing.prepare(opened)
