"""Runs several commands one after another in the processes of one launch, so that each process starts only once.

    torchrun --nproc_per_node 2 -m tests.distributed.several COMMANDS

COMMANDS is a JSON file that holds a list of arguments for each command.
"""

import json
import logging
import sys
from pathlib import Path

from accelerate.state import AcceleratorState

from qwenvl_train.cli import main
from qwenvl_train.training.meter import Meter

WARNING = "as a library warns"


def warn_in_each_run() -> None:
    """Let each process of each run log a warning, as libraries do."""
    start = Meter.start

    def warn_and_start(meter: Meter) -> None:
        logging.getLogger("a_library").warning(WARNING)
        start(meter)

    Meter.start = warn_and_start


def run_all(commands: list[list[str]]) -> int:
    """The exit code of the first command that fails, or 0."""
    for arguments in commands:
        # accelerate refuses another DeepSpeed stage in the same process otherwise.
        AcceleratorState._reset_state(reset_partial_state=True)
        if code := main(arguments):
            return code
    return 0


if __name__ == "__main__":
    warn_in_each_run()
    sys.exit(run_all(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
