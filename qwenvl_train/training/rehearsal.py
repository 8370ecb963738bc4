"""Computes the largest micro-batches of an epoch before the first step, so that memory that does not suffice runs out
then and not in the middle of the run."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from transformers import TrainerCallback

from qwenvl_train.config.schema import OptimConfig
from qwenvl_train.data.batches.loader import Row, only_row
from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.wording import many
from qwenvl_train.training.devices import peak_memory_gib
from qwenvl_train.training.meter import Counts, Meter
from qwenvl_train.training.objectives.objective import Objective
from qwenvl_train.training.optim import moment_bytes
from qwenvl_train.training.trainer import VisionTrainer
from qwenvl_train.training.window import MicroBatch, Window


class Rehearsal(TrainerCallback):
    """Callback that computes micro-batches forward and backward before the training, on every process the same.

    It leaves nothing behind: random numbers go on as if it had not been, and each loss is divided by infinity, so that
    the gradients are zero. DeepSpeed adds them to those of the first step, and otherwise they are dropped.
    """

    def __init__(
        self,
        trainer: VisionTrainer,
        objective: Objective,
        meter: Meter,
        optim: OptimConfig,
        rows: Callable[[], Sequence[Row]],
    ):
        self._trainer, self._objective, self._meter, self._optim, self._rows = trainer, objective, meter, optim, rows

    def on_train_begin(self, args, state, control, **_) -> None:
        device = args.device
        micro_batches = []
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            held = self._held_in_steps()
            for row in self._rows():
                micro_batches.append(MicroBatch(row.contents, row.origins))
                self._trainer.window = Window(state.global_step, [micro_batches[-1]], rehearsal=True)
                self._compute(row)
            del held
        if not self._trainer.is_deepspeed_enabled:
            self._trainer.model.zero_grad(set_to_none=True)
        self._trainer.window = Window(state.global_step, [])
        self._objective.take(self._trainer.accelerator)
        self._meter.start()
        if state.is_world_process_zero:
            sizes = " and ".join(
                f"{many(one.tokens, 'token')} with {many(one.patches, 'patch')}" for one in micro_batches
            )
            say(console_on(), f"rehearsed: {sizes}, the largest of an epoch, need {peak_memory_gib():.1f} GiB")

    def _compute(self, row: Row) -> None:
        trainer, accelerator = self._trainer, self._trainer.accelerator
        batch = {key: value for key, value in only_row([row]).items() if key in row.batch}
        divisors = torch.full((len(self._objective.divisors(Counts())),), torch.inf, device=trainer.args.device)
        # As in each micro-batch but the last one of a step
        accelerator.sync_gradients = False
        model = trainer.model_wrapped
        with nullcontext() if trainer.is_deepspeed_enabled else accelerator.no_sync(model):
            trainer.training_step(model, batch, divisors)

    def _held_in_steps(self) -> list[torch.Tensor]:
        """Allocate what later steps hold during their passes and the first one does not: the optimizer's state, and the
        gradients of earlier micro-batches. DeepSpeed has allocated both."""
        trainer = self._trainer
        if trainer.is_deepspeed_enabled:
            return []
        trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        if trainer.args.gradient_accumulation_steps > 1:
            for weight in trained:
                weight.grad = torch.zeros_like(weight)
        assert trainer.optimizer is not None
        if trainer.args.device.type != "cuda" or trainer.optimizer.state:
            return []
        each = moment_bytes(self._optim)
        return [torch.empty(each * weight.numel(), dtype=torch.uint8, device=weight.device) for weight in trained]
