"""Runs a command with chunks of two rows, so that two processes share few rows.

torchrun --nproc_per_node 2 -m tests.distributed.small_chunks filter …
"""

import sys

from qwenvl_train.cli import main
from qwenvl_train.verbs.filter import filtering

if __name__ == "__main__":
    filtering._CHUNK = 2
    sys.exit(main(sys.argv[1:]))
