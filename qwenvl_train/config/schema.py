"""The whole configuration as one frozen tree. Defaults stand in configs/, never here; imports no torch."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Component = Literal["vision", "mlp", "llm"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(Section):
    path: str
    """A local folder or a hub id; the family is read from its config, never from this name."""
    revision: str | None
    """Branch, tag or commit of a hub id."""
    family: str | None
    """The model_type that the checkpoint must have; null takes any supported one."""
    min_pixels: PositiveInt | None
    max_pixels: PositiveInt | None
    """Limits on one resized image, saved with every checkpoint; null keeps the checkpoint's own."""
    quantize: Literal["none", "nf4"]
    """nf4 stores the frozen language model in 4 bits (needs bitsandbytes)."""


class LoraConfig(Section):
    vision: bool
    mlp: bool
    llm: bool
    """Train this component through adapters on its linear layers, instead of in full."""
    rank: PositiveInt
    alpha: PositiveFloat
    dropout: Annotated[float, Field(ge=0, lt=1)]
    rslora: bool
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""


class SourceConfig(Section):
    """One entry of data.train or data.eval; only this section has defaults, since users write it by hand."""

    path: str
    format: Literal["auto", "llava", "messages"] = "auto"
    media_root: str | None = None
    """Folder that relative picture paths start from; null means the folder of the file itself."""


def _as_sources(value: object) -> object:
    if value is None:
        return None
    entries = value if isinstance(value, list | tuple) else [value]
    return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


Sources = Annotated[tuple[SourceConfig, ...], BeforeValidator(_as_sources), Field(min_length=1)]


class DataConfig(Section):
    train: Sources
    eval: Sources | None
    max_length: PositiveInt | None
    """Longest sample in tokens; a longer one is an error that names its row. Null sets no limit."""
    workers: NonNegativeInt
    """Processes that decode pictures beside the training process."""


class TrainConfig(Section):
    lr: PositiveFloat
    lr_vision: PositiveFloat | None
    lr_mlp: PositiveFloat | None
    lr_llm: PositiveFloat | None
    """Learning rate of one component; null takes train.lr."""
    batch_size: PositiveInt
    """Samples in one forward pass on each device."""
    eval_batch_size: PositiveInt
    accumulation: PositiveInt
    """Forward passes before one optimizer step."""
    epochs: PositiveFloat | None
    max_steps: PositiveInt | None
    """How long to train; exactly one of the two is set."""
    schedule: Literal["cosine", "linear", "constant"]
    warmup: NonNegativeFloat
    """Steps of warm-up, or a share of all steps where below 1."""
    clip: NonNegativeFloat
    """Largest norm of the gradient; 0 does not clip."""
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    checkpointing: Literal["none", "vision", "llm", "all"]
    """Where activations are recomputed in the backward pass instead of kept."""
    log_steps: PositiveInt
    eval_steps: PositiveInt | None
    """Evaluate every so many steps; null only before and after the run."""
    save_steps: PositiveInt | None
    """Save every so many steps; null only at the end."""
    keep: PositiveInt | None
    """How many checkpoints stay on disk; null keeps all."""
    resume: str
    """auto continues the newest checkpoint of this run_name, never starts anew, else a checkpoint folder."""


class OptimConfig(Section):
    name: Literal["adamw", "adamw_8bit"]
    weight_decay: NonNegativeFloat
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    eps: PositiveFloat


class DeepSpeedConfig(Section):
    stage: Literal[0, 2, 3]
    """0 is off; 2 shards gradients and optimizer state over the processes, 3 the weights as well."""
    overlap_comm: bool
    bucket_elements: PositiveInt
    """How many numbers go into one communication."""


class WandbConfig(Section):
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str
    entity: str | None
    group: str | None
    tags: tuple[str, ...]


class LoggingConfig(Section):
    wandb: WandbConfig
    predictions: NonNegativeInt
    """How many held-out samples get a generated answer in the report."""


class RunConfig(Section):
    run_name: str | None
    """Folder of the run below output_dir; null makes one from the recipe and the time."""
    output_dir: str
    seed: NonNegativeInt
    tune_mm_vision: bool
    tune_mm_mlp: bool
    tune_mm_llm: bool
    model: ModelConfig
    lora: LoraConfig
    data: DataConfig
    train: TrainConfig
    optim: OptimConfig
    deepspeed: DeepSpeedConfig
    logging: LoggingConfig

    def tuned(self, component: Component) -> bool:
        return {"vision": self.tune_mm_vision, "mlp": self.tune_mm_mlp, "llm": self.tune_mm_llm}[component]

    def adapted(self, component: Component) -> bool:
        return getattr(self.lora, component)

    def learning_rate(self, component: Component) -> float:
        return getattr(self.train, f"lr_{component}") or self.train.lr
