"""The verb train, which fine-tunes a model."""

import sys

from qwenvl_train.config.compose import Composed
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.reporting.wording import many
from qwenvl_train.training.distributed.processes import choose_precision, join_processes


def run(composed: Composed[RunConfig]) -> None:
    config = composed.config
    state = join_processes(config)
    precision = choose_precision(config)
    family = load_family(config.model)
    if state.is_main_process:
        processes = many(state.num_processes, "process", "processes")
        print(f"{family.name} from {config.model.path}, {precision}, {processes}", flush=True)
    from qwenvl_train.run.opening import locked_folder, open_run
    from qwenvl_train.run.training_run import prepare

    with locked_folder(composed, state) as folder:
        opened = open_run(composed, folder, family, precision, state)
        start, steps = opened.start, opened.data.steps
        if state.is_main_process and start.checkpoint:
            print(f"{start.folder.name} resumes from {start.checkpoint}, step {start.step} of {steps}")
        if opened.is_finished:
            if state.is_main_process:
                print("this run is already finished")
            return
        interrupted_by = prepare(opened).train()
    if interrupted_by is not None:
        state.wait_for_everyone()  # a launcher ends the others, which may still hold the lock, when one process exits
        sys.exit(128 + interrupted_by)
