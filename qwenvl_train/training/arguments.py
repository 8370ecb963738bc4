"""Translates the configuration of a run into the trainer's arguments. An argument that is not set here keeps its
default on purpose."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from qwenvl_train.config.schema import RunConfig


def training_arguments(
    config: RunConfig,
    staging: Path,
    steps: int,
    precision: str,
    resumed: bool,
    deepspeed: dict[str, Any] | None = None,
) -> TrainingArguments:
    """Return the trainer's arguments. Checkpoints are written to the folder `staging` before they are complete.
    `deepspeed` is DeepSpeed's configuration, or None to do without it."""
    train = config.train
    arguments = TrainingArguments(
        output_dir=str(staging),
        seed=config.seed,
        max_steps=steps,
        # An item of the data loader is a whole packed row. The data pipeline decides how many samples it holds.
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        gradient_accumulation_steps=config.accumulation,
        average_tokens_across_devices=True,
        learning_rate=train.lr,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(train.schedule, train.schedule),
        # Rounded down here, because the transformers Trainer would round up. The first step of a warm-up has a learning
        # rate of 0, so a short run would learn nothing.
        warmup_steps=int(train.warmup * steps if train.warmup < 1 else train.warmup),
        max_grad_norm=train.clip,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        logging_steps=min(train.log_steps, steps),
        logging_first_step=True,
        # The filter would wait for the device in every pass, and would hide NaN and infinite losses from the user.
        logging_nan_inf_filter=False,
        eval_strategy="steps" if config.data.eval else "no",
        eval_steps=train.eval_steps or steps,
        eval_on_start=config.data.eval is not None and not resumed,
        save_steps=train.save_steps or steps,
        save_strategy="steps",
        ignore_data_skip=config.data.streaming,  # a stream resumes from its own stored state
        dataloader_num_workers=config.data.workers,
        dataloader_persistent_workers=config.data.workers > 0,
        dataloader_pin_memory=torch.cuda.is_available(),
        accelerator_config={"non_blocking": torch.cuda.is_available()},
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),  # otherwise accelerate forms no group of CPU processes
        deepspeed=deepspeed,
        ddp_find_unused_parameters=False,  # every pass uses every trained weight, even without pictures
        ddp_broadcast_buffers=False,  # the buffers are tables of rotary angles, which no pass changes
        report_to=[],
        disable_tqdm=True,
    )
    # Without a launcher, on a machine with several GPUs, the transformers Trainer would copy the model to all of them.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
