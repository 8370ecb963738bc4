"""The names that other frameworks have for a setting, for the suggestion in an error.

The names are those of transformers and TRL, LLaMA-Factory, ms-swift, and the fine-tuning script of the Qwen-VL
repositories.
"""

from qwenvl_train.config.options import nearest

OTHER_NAMES = {
    # training
    "learning_rate": "train.lr",
    "vit_lr": "train.lr_vision",
    "vision_tower_lr": "train.lr_vision",
    "vision_lr": "train.lr_vision",
    "aligner_lr": "train.lr_mlp",
    "mm_projector_lr": "train.lr_mlp",
    "merger_lr": "train.lr_mlp",
    "per_device_train_batch_size": "train.batch_size",
    "per_device_eval_batch_size": "train.eval_batch_size",
    "gradient_accumulation_steps": "train.accumulation",
    "num_train_epochs": "train.epochs",
    "lr_scheduler_type": "train.schedule",
    "warmup_ratio": "train.warmup",
    "warmup_steps": "train.warmup",
    "max_grad_norm": "train.clip",
    "bf16": "train.precision=bf16",
    "fp16": "train.precision=fp16",
    "torch_dtype": "train.precision",
    "attn_impl": "train.attention",
    "attn_implementation": "train.attention",
    "flash_attn": "train.attention",
    "gradient_checkpointing": "train.checkpointing",
    "vit_gradient_checkpointing": "train.checkpointing=vision",
    "activation_offloading": "train.offload_activations",
    "stage3_gather_16bit_weights_on_model_save": "deepspeed.gather_on_save",
    "torch_compile": "train.compile",
    "use_liger_kernel": "train.liger",
    "enable_liger_kernel": "train.liger",
    "logging_steps": "train.log_steps",
    "save_total_limit": "train.keep",
    "resume_from_checkpoint": "train.resume",
    "metric_for_best_model": "train.best_metric",
    "load_best_model_at_end": "train.best_metric",
    # what is trained
    "freeze_vit": "tune_mm_vision, which means the opposite",
    "freeze_vision_tower": "tune_mm_vision, which means the opposite",
    "freeze_aligner": "tune_mm_mlp, which means the opposite",
    "freeze_merger": "tune_mm_mlp, which means the opposite",
    "freeze_multi_modal_projector": "tune_mm_mlp, which means the opposite",
    "freeze_llm": "tune_mm_llm, which means the opposite",
    "freeze_language_model": "tune_mm_llm, which means the opposite",
    "train_type": "+recipe=sft_lora",
    "tuner_type": "+recipe=sft_lora",
    "finetuning_type": "+recipe=sft_lora",
    "use_peft": "+recipe=sft_lora",
    "lora_enable": "+recipe=sft_lora",
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "use_rslora": "lora.rslora",
    "adapter_name_or_path": "model.path",
    "adapters": "model.path",
    "resume_from_adapter": "model.path",
    "create_new_adapter": "lora.existing=merge",
    # model
    "model_name_or_path": "model.path",
    "model_id_or_path": "model.path",
    "model_revision": "model.revision",
    "load_in_4bit": "model.quantize=nf4",
    "quantization_bit": "model.quantize=nf4",
    "quant_bits": "model.quantize=nf4",
    "image_max_pixels": "model.max_pixels",
    "image_min_pixels": "model.min_pixels",
    "video_max_pixels": "model.video.max_pixels",
    "video_min_pixels": "model.video.min_pixels",
    "video_fps": "model.video.fps",
    "video_maxlen": "model.video.max_frames",
    "video_max_frames": "model.video.max_frames",
    "fps_max_frames": "model.video.max_frames",
    "video_min_frames": "model.video.min_frames",
    "fps_min_frames": "model.video.min_frames",
    # data
    "dataset": "data.train",
    "dataset_name": "data.train",
    "dataset_use": "data.train",
    "train_file": "data.train",
    "val_dataset": "data.eval",
    "eval_dataset": "data.eval",
    "val_size": "data.eval=5%",
    "split_dataset_ratio": "data.eval=5%",
    "cutoff_len": "data.max_length",
    "max_seq_length": "data.max_length",
    "model_max_length": "data.max_length",
    "truncation_strategy": "data.too_long",
    "enable_thinking": "data.thinking",
    "preserve_thinking": "data.thinking=as_given",
    "data_flatten": "data.packing",
    "data_packing": "data.packing",
    "packing_length": "data.pack_length",
    "dataloader_num_workers": "data.workers",
    "dataset_num_proc": "data.workers",
    "preprocessing_num_workers": "data.workers",
    "media_dir": "data.train='[{path:…,media_root:…}]'",
    "image_folder": "data.train='[{path:…,media_root:…}]'",
    # preferences
    "rlhf_type": "+recipe=dpo_lora",
    "pref_beta": "dpo.beta",
    "pref_loss": "dpo.loss",
    "loss_type": "dpo.loss",
    "loss_weights": "dpo.weights",
    "use_weighting": "dpo.wpo",
    # optimizer, logging
    "adam_beta1": "optim.beta1",
    "adam_beta2": "optim.beta2",
    "adam_epsilon": "optim.eps",
    "report_to": "logging.wandb.mode",
    "wandb_project": "logging.wandb.project",
    "data_seed": "seed",
}
"""Maps each name to the setting, or to what to write."""

_SEQUENCE_PARALLEL = (
    "sequence parallelism is not supported, because DeepSpeed's takes neither the pixels of packed rows nor their "
    "4-row positions; docs/distributed.md says how long a sequence fits on one device"
)

WITHOUT_SETTING = dict.fromkeys(
    (
        "sequence_parallel", "sequence_parallel_size", "sequence_parallel_degree", "sequence_parallel_mode",
        "ulysses_sequence_parallel_size", "ulysses_size", "sp_size", "context_parallel", "context_parallel_size",
        "cp_size", "ring_attn_size",
    ),
    _SEQUENCE_PARALLEL,
)  # fmt: skip
"""Maps each name of something that there is no setting for to the reason."""


def reason_against(name: str) -> str | None:
    """Return why there is no setting for what a name means to other frameworks, or None."""
    return WITHOUT_SETTING.get(_plain(name))


def suggestion(name: str) -> str | None:
    """Return what to write instead of a name of another framework, or None. Dashes count as underscores, and a letter
    may be wrong."""
    meant = nearest(_plain(name), OTHER_NAMES, cutoff=0.9)
    return meant and OTHER_NAMES[meant]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
