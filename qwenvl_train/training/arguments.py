"""From the run's configuration to the trainer's arguments. Nothing here is left to the engine's defaults by chance."""

from pathlib import Path

import torch
from trl import SFTConfig

from qwenvl_train.config.schema import DeepSpeedConfig, RunConfig


def training_arguments(config: RunConfig, staging: Path, steps: int, precision: str, resumed: bool) -> SFTConfig:
    """`staging` is where checkpoints are written before they are complete."""
    train = config.train
    arguments = SFTConfig(
        output_dir=str(staging),
        seed=config.seed,
        max_steps=steps,
        # The loader's item is a whole row; how many samples it holds is the data's business.
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        gradient_accumulation_steps=train.accumulation,
        average_tokens_across_devices=True,
        learning_rate=train.lr,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(train.schedule, train.schedule),
        # The engine would round up, and the first step of a warm-up has a rate of 0: a short run would learn nothing.
        warmup_steps=int(train.warmup * steps if train.warmup < 1 else train.warmup),
        max_grad_norm=train.clip,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        gradient_checkpointing=False,  # model/checkpointing.py sets it per component
        activation_offloading=train.offload_activations,
        router_aux_loss_coef=0.0,  # a mean per forward pass would make the gradient depend on how a batch is cut
        logging_steps=min(train.log_steps, steps),
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it asks the device at every pass, and hides what the user should see
        eval_strategy="steps" if config.data.eval else "no",
        eval_steps=train.eval_steps or steps,
        eval_on_start=config.data.eval is not None and not resumed,
        save_steps=train.save_steps or steps,
        save_strategy="steps",
        ignore_data_skip=config.data.streaming,  # a stream goes on by itself
        dataloader_num_workers=config.data.workers,
        dataloader_persistent_workers=config.data.workers > 0,
        dataloader_pin_memory=torch.cuda.is_available(),
        accelerator_config={"non_blocking": torch.cuda.is_available()},
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        use_cpu=not torch.cuda.is_available(),  # or accelerate forms no group of CPU processes
        deepspeed=deepspeed_settings(config.deepspeed),
        ddp_find_unused_parameters=False,  # every trained weight is used in every pass, pictures or none
        ddp_broadcast_buffers=False,  # tables of rotary angles, which no pass changes
        report_to=[],
        disable_tqdm=True,
    )
    # Started without a launcher where there are several GPUs, the engine would copy the model to all of them.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def deepspeed_settings(config: DeepSpeedConfig) -> dict | None:
    """No optimizer or scheduler block: DeepSpeed would let it silently replace ours."""
    if config.stage == 0:
        return None
    zero = {
        "stage": config.stage,
        "overlap_comm": config.overlap_comm,
        "contiguous_gradients": True,
        "reduce_bucket_size": config.bucket_elements,
    }
    if config.stage == 2:
        zero["allgather_bucket_size"] = config.bucket_elements
    else:
        zero["stage3_prefetch_bucket_size"] = config.bucket_elements
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    types = {
        "data_types": {"grad_accum_dtype": config.grad_accum_dtype},
        "communication_data_type": config.communication_dtype,
    }
    return {
        "zero_optimization": zero,
        **{key: value for key, value in types.items() if value not in (None, {"grad_accum_dtype": None})},
        "zero_allow_untested_optimizer": True,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "steps_per_print": 10**9,
    }
