"""Counts the bytes that steps exchange, in the processes of one launch.

    torchrun --nproc_per_node 2 -m tests.distributed.traffic JOBS

JOBS is a JSON file that holds, for each job, the arguments of a run, further settings of ZeRO, and the file to which
the first process writes the bytes of the last step, by operation.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from qwenvl_train.api.runs import compose, prepare

OPERATIONS = {"allreduce_": "all-reduce", "_allgather_base_": "all-gather", "_reduce_scatter_base_": "reduce-scatter"}


class Traffic(TorchDispatchMode):
    """The bytes of all collective operations, of the tensors that are whole: the inputs of a reduction, or the outputs
    of a gathering. Those of torch's C++ code count, too."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func._schema.name.removeprefix("c10d::")
            whole = args[1] if name == "_reduce_scatter_base_" else args[0]
            leaves = torch.utils._pytree.tree_leaves(whole)
            self.bytes[OPERATIONS.get(name, name)] += sum(leaf.nbytes for leaf in leaves if torch.is_tensor(leaf))
        return func(*args, **(kwargs or {}))


class OfStep(TrainerCallback):
    """The bytes of the last step that has ended."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic, self.bytes = traffic, {}

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._traffic.bytes.clear()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.bytes = dict(self._traffic.bytes)


def main(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        # accelerate refuses another DeepSpeed stage in the same process otherwise.
        AcceleratorState._reset_state(reset_partial_state=True)
        run = prepare(compose(job["arguments"]))
        if job["zero"]:
            run.trainer.accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"] |= job["zero"]
        with Traffic() as traffic:
            of_step = OfStep(traffic)
            run.trainer.add_callback(of_step)
            run.train()
        if run.context.is_main:
            Path(job["to"]).write_text(json.dumps(of_step.bytes), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
