"""The verb train, which fine-tunes a model."""

import sys

from qwenvl_train.config.compose import Composed
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.reporting.console import print_line
from qwenvl_train.reporting.run_log import RunLog
from qwenvl_train.reporting.wording import many


def run(composed: Composed[RunConfig]) -> None:
    with RunLog() as log:
        interrupted_by = _train(composed, log)
    if interrupted_by is not None:
        sys.exit(128 + interrupted_by)


def _train(composed: Composed[RunConfig], log: RunLog) -> int | None:
    """Train, and return the number of the signal that ended the run early, if there was one."""
    # These imports may already log and warn.
    from qwenvl_train.model.pretrained import load_family
    from qwenvl_train.training.distributed.processes import choose_precision, join_processes

    config = composed.config
    state = join_processes(config)
    precision = choose_precision(config)
    family = load_family(config.model)
    if state.is_main_process:
        processes = many(state.num_processes, "process", "processes")
        print_line(f"{family.name} from {config.model.path}, {precision}, {processes}")
    from qwenvl_train.run.opening import locked_folder, open_run
    from qwenvl_train.run.preparing import prepare

    with locked_folder(composed, state) as folder:
        opened = open_run(composed, folder, family, precision, state)
        start, steps = opened.start, opened.data.steps
        if state.is_main_process and start.checkpoint:
            print_line(f"{start.folder.name} resumes from {start.checkpoint}, step {start.step} of {steps}")
        if opened.is_finished:
            if state.is_main_process:
                print_line("this run is already finished")
            return None
        interrupted_by = prepare(opened).train(log)
    if interrupted_by is not None:
        state.wait_for_everyone()  # a launcher ends the others, which may still hold the lock, when one process exits
    return interrupted_by
