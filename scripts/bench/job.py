"""What a benchmark trains: a model with random weights, with a recipe, on a workload."""

import time
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForImageTextToText, PreTrainedConfig, ProcessorMixin
from workload import SEED, Conversation, Workload, draw

import qwenvl_train
from qwenvl_train.batch import Contents
from qwenvl_train.config.schema import TWO_MODELS, RunConfig
from qwenvl_train.data.batches.loader import Row
from qwenvl_train.families.family import Family
from qwenvl_train.families.tiny import build_processor
from qwenvl_train.model.attention import set_attention
from qwenvl_train.model.autocast import autocast, autocast_to
from qwenvl_train.model.build import arrange, base_model
from qwenvl_train.model.components import COMPONENTS, mode_of
from qwenvl_train.model.flops import FlopCount
from qwenvl_train.model.load import DTYPES
from qwenvl_train.model.shapes import architecture
from qwenvl_train.run.opening import OpenedRun
from qwenvl_train.run.training_data import TrainingData
from qwenvl_train.training.optim import keep_masters

# The rate is so low that no weight changes, so that every way computes the same values in every round.
LEARNING_RATE = 1e-12
TINY_PIXELS = 448 * 448
"""The tiny models' own limit is 16 visual tokens per image, very few compared with the answers."""


@dataclass(frozen=True)
class Job:
    model: str
    """The name of its entry in configs/model."""
    recipe: str
    workload: Workload
    opened: OpenedRun
    architecture: PreTrainedConfig
    conversations: list[Conversation]

    @property
    def config(self) -> RunConfig:
        return self.opened.context.config

    @property
    def family(self) -> Family:
        return self.opened.context.family

    @property
    def processor(self) -> ProcessorMixin:
        return self.opened.context.processor

    @property
    def precision(self) -> str:
        return self.opened.context.precision

    @property
    def device(self) -> torch.device:
        return self.opened.context.device

    @property
    def train(self) -> TrainingData:
        return self.opened.data.train

    def with_training(self, **settings: Any) -> "Job":
        """The same job with other settings of `train`."""
        context = self.opened.context
        config = context.config.model_copy(update={"train": context.config.train.model_copy(update=settings)})
        return replace(self, opened=replace(self.opened, context=replace(context, config=config)))

    @property
    def per_step(self) -> int:
        return self.config.train.batch_size * self.config.train.accumulation

    @property
    def steps(self) -> int:
        return len(self.conversations) // self.per_step

    @property
    def micro_batches(self) -> int:
        return self.steps * self.config.train.accumulation

    def samples(self, micro_batch: int) -> list[int]:
        return self.train.counts.row(micro_batch).tolist()

    @cached_property
    def rows(self) -> list[Row]:
        """Return the micro-batches as this project's loader makes them."""
        dataset = self.train.dataset(self.micro_batches)
        return [dataset[index] for index in range(self.micro_batches)]

    @property
    def contents(self) -> list[Contents]:
        return [row.contents for row in self.rows]

    @property
    def timed(self) -> range:
        """Return the micro-batches of all steps but the first."""
        return range(self.config.train.accumulation, self.micro_batches)

    @cached_property
    def count(self) -> FlopCount:
        modes = {component: mode_of(component, self.config) for component in COMPONENTS}
        compares = self.config.reference in TWO_MODELS
        return FlopCount.of(self.architecture, modes, self.config.lora.rank, compares=compares)

    def flops(self, contents: list[Contents]) -> int:
        """Return the FLOPs of these micro-batches, forward and backward, as the project counts them: only required
        work."""
        return sum(self.count.training(one).total for one in contents)

    def now(self) -> float:
        """Return the time after the device has finished. On a CPU it is the CPU time of this process, since others may
        run too."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def make_job(
    folder: Path, model: str, recipe: str, workload: Workload, samples: int, batch_size: int, accumulation: int,
    workers: int, settings: list[str],
) -> Job:  # fmt: skip
    if samples % (batch_size * accumulation) or samples < 2 * batch_size * accumulation:
        raise SystemExit(
            f"--{workload.unit} {samples} must be two or more steps of --batch-size {batch_size} times "
            f"--accumulation {accumulation} {workload.unit}."
        )
    given = [f"+recipe={recipe}", f"model={model}", *settings]
    entry = qwenvl_train.compose(given).config.model
    shape = _completed(architecture(entry))
    processor = build_processor(shape.model_type)
    ids = processor.tokenizer.convert_tokens_to_ids
    shape.image_token_id, shape.video_token_id = ids("<|image_pad|>"), ids("<|video_pad|>")
    shape.vision_start_token_id, shape.vision_end_token_id = ids("<|vision_start|>"), ids("<|vision_end|>")
    checkpoint = folder / "checkpoint"
    shape.save_pretrained(checkpoint)
    processor.save_pretrained(checkpoint)
    limits = [] if entry.max_pixels else [f"model.max_pixels={TINY_PIXELS}"]
    composed = qwenvl_train.compose([
        *given, *limits, f"model.path={checkpoint}", "data=files",
        f"data.train={folder / 'rows.jsonl'}", "data.packing=false", "data.max_length=null",
        f"data.workers={workers}", f"train.batch_size={batch_size}", f"train.accumulation={accumulation}",
        f"train.max_steps={samples // (batch_size * accumulation)}", "train.schedule=constant", "train.warmup=0",
        f"train.lr={LEARNING_RATE}", "train.lr_vision=null", "train.lr_mlp=null", f"output_dir={folder}",
        f"train.log_steps={samples}", "logging.wandb.mode=disabled",
    ])  # fmt: skip
    pixels = composed.config.model.max_pixels or processor.image_processor.size["longest_edge"]
    conversations = draw(workload, folder, samples, pixels)
    opened = qwenvl_train.open_run(composed)
    if opened.context.device.type == "cpu" and workers:
        raise SystemExit(f"--workers {workers}: on the CPU the clock sees this process alone; take 0.")
    if opened.context.precision == "fp16":
        raise SystemExit("The ways are measured in bf16 or fp32, without the scaling that fp16 needs.")
    return Job(model, recipe, workload, opened, shape, conversations)


def _completed(shape: PreTrainedConfig) -> PreTrainedConfig:
    """Return the settings with the rotary embedding, which model.shape leaves out. Published heads have 128
    dimensions."""
    rope = shape.text_config.rope_parameters
    if "mrope_section" not in rope:
        second, third = {"mrope_section": [16, 24, 24]}, {"mrope_section": [24, 20, 20], "mrope_interleaved": True}
        shape.text_config.rope_parameters = rope | (third if shape.model_type.startswith("qwen3") else second)
    return shape


class Trained:
    """One model for all ways, as a run would have it after loading, and as transformers publishes it."""

    def __init__(self, job: Job, seed: int = SEED):
        torch.manual_seed(seed)
        # Trainers write into the configuration, which would change how the next model is built.
        architecture = deepcopy(job.architecture)
        with job.device:
            model = AutoModelForImageTextToText.from_config(
                architecture, dtype=DTYPES[job.precision], attn_implementation="sdpa"
            )
        self.model = arrange(model, job.config, job.family, job.processor)
        keep_masters(self.model)
        self.model.train()
        self._attention = base_model(self.model).config._attn_implementation
        self._device_type, self._dtype = job.device.type, autocast_to(job.config, job.precision)
        self._ours, self._hooks = self._replaced(), [dict(module._forward_hooks) for module in self.model.modules()]
        self._published = False

    def as_ours(self) -> None:
        self.as_published(self._attention)
        self._published = False
        for module, name, method in self._ours:
            vars(module)[name] = method
        for module, hooks in zip(self.model.modules(), self._hooks, strict=True):
            module._forward_hooks.update(hooks)
        self._cast_for_adapters(False)

    def as_published(self, attention: str) -> None:
        """Remove what this project's forward pass, TRL and accelerate put on this instance."""
        self._published = True
        for module, name, _ in self._replaced():
            del vars(module)[name]
        for module in self.model.modules():
            module._forward_hooks.clear()
        self._cast_for_adapters(True)
        set_attention(base_model(self.model), attention)

    def autocast(self) -> torch.autocast:
        """Enter autocast as a run of this project does, or as transformers and TRL do."""
        if self._published:
            return torch.autocast(self._device_type, self._dtype, enabled=self._dtype is not None)
        return autocast(self._device_type, self._dtype)

    def _cast_for_adapters(self, cast: bool) -> None:
        for module in self.model.modules():
            if isinstance(module, BaseTunerLayer):
                module.cast_input_dtype_enabled = cast

    def _replaced(self) -> list[tuple[torch.nn.Module, str, Any]]:
        return [
            (module, name, vars(module)[name])
            for module in self.model.modules()
            for name in ("forward", "_original_forward", "_deepstack_process")
            if name in vars(module)
        ]
