"""`python -m qwenvl_train`, as torchrun and the DeepSpeed launcher start it."""

import sys

from qwenvl_train.cli import main

sys.exit(main())
