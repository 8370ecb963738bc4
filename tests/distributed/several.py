"""Runs several commands one after another in the processes of one launch, so that each process starts only once.

    torchrun --nproc_per_node 2 -m tests.distributed.several COMMANDS

COMMANDS is a JSON file that holds a list of arguments for each command.
"""

import json
import sys
from pathlib import Path

from accelerate.state import AcceleratorState

from qwenvl_train.cli import main


def run_all(commands: list[list[str]]) -> int:
    """The exit code of the first command that fails, or 0."""
    for arguments in commands:
        # accelerate refuses another DeepSpeed stage in the same process otherwise.
        AcceleratorState._reset_state(reset_partial_state=True)
        if code := main(arguments):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(run_all(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
