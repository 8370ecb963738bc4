"""The whole configuration as one frozen tree. Defaults stand in configs/, never here; imports no torch."""

from typing import Annotated, Literal, get_args

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

from qwenvl_train.config.devices import DeviceName

Component = Literal["vision", "mlp", "llm"]
Kernel = Literal["auto", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VideoConfig(Section):
    """Each null takes what the checkpoint's video processor says; what that can hold is saved with every checkpoint."""

    fps: PositiveFloat | None
    """Frames taken from each second of a video."""
    min_frames: PositiveInt | None
    max_frames: PositiveInt | None
    min_pixels: PositiveInt | None
    max_pixels: PositiveInt | None
    """Limits on one resized frame."""
    total_pixels: PositiveInt | None
    """Limit on all resized frames of a clip together."""


class TextShape(Section):
    """The language model's sizes; null where the family has no such thing, so these may be left out."""

    num_hidden_layers: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    vocab_size: PositiveInt
    head_dim: PositiveInt | None = None
    num_experts: PositiveInt | None = None
    num_experts_per_tok: PositiveInt | None = None
    moe_intermediate_size: PositiveInt | None = None


class VisionShape(Section):
    """The vision tower's and the mergers' sizes; null as above."""

    depth: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_heads: PositiveInt
    out_hidden_size: PositiveInt
    patch_size: PositiveInt
    spatial_merge_size: PositiveInt
    temporal_patch_size: PositiveInt
    window_size: PositiveInt | None = None
    fullatt_block_indexes: tuple[NonNegativeInt, ...] | None = None
    num_position_embeddings: PositiveInt | None = None
    deepstack_visual_indexes: tuple[NonNegativeInt, ...] | None = None


class ShapeConfig(Section):
    """The sizes of a published model in the words of its config.json: what can be told before it is fetched."""

    text: TextShape
    vision: VisionShape
    tie_word_embeddings: bool


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
    video: VideoConfig
    quantize: Literal["none", "nf4"]
    """nf4 stores the frozen language model in 4 bits (needs bitsandbytes)."""
    shape: ShapeConfig | None
    """Of the published model that an entry names; null reads it from the checkpoint."""


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


RowFormat = Literal[
    "auto", "llava", "sharegpt", "messages", "prompt_completion", "query_response", "instruction", "preference"
]


class SourceConfig(Section):
    """One entry of data.train or data.eval; only this section and model.shape have defaults, since they are
    written by hand."""

    path: str
    """A .jsonl, .json or .parquet file, a folder or glob of these, an arrow dataset folder, or a hub id."""
    format: RowFormat = "auto"
    media_root: str | None = None
    """Folder that relative paths start from, and that no path may leave; null means the file's folder, and no fence."""
    weight: PositiveFloat | None = None
    """Share of this source in an epoch, relative to the other sources' weights; given for all sources or for none."""
    repeats: PositiveFloat | None = None
    """How often an epoch goes through this source; 0.5 takes half of it, another half in the next epoch."""
    split: str | None = None
    """Of an arrow dataset folder or a hub id; null takes train where there is one."""
    subset: str | None = None
    """Configuration name of a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""


def _as_sources(value: object) -> object:
    if value is None:
        return None
    entries = value if isinstance(value, list | tuple) else [value]
    return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]


Sources = Annotated[tuple[SourceConfig, ...], BeforeValidator(_as_sources), Field(min_length=1)]


class DataConfig(Section):
    train: Sources
    eval: Sources | None
    streaming: bool
    """Read data.train from front to back while training, instead of measuring every row before; needs
    train.max_steps."""
    max_length: PositiveInt | None
    """Longest sample in tokens, and the length to which packing fills rows; null sets no limit."""
    too_long: Literal["error", "skip", "downscale"]
    """What happens to a sample over max_length; downscale shrinks its pictures and clips until it fits."""
    packing: bool
    """Fill each row with samples up to max_length tokens, instead of a fixed number of samples."""
    bucketing: bool
    """Without packing: put samples of similar cost into the passes that run at the same time."""
    on_error: Literal["raise", "skip"]
    """What a row that cannot be used does: it ends the run, or is left out and listed in skipped.jsonl."""
    max_skipped: NonNegativeInt
    """More skipped rows than this end the run."""
    allow_remote: bool
    """Fetch media from http and https addresses; a copy is kept in data.cache."""
    vision_ids: bool
    """Write "Picture 1: ", "Video 1: " and so on before each picture and clip."""
    cache: str | None
    """Folder of the index of lengths, of fetched files, and of parquet files as arrow, which are full copies; null
    takes .cache below output_dir."""
    cache_pictures: bool
    """Keep resized pictures in data.cache, so that later epochs and runs need not decode them again."""
    workers: NonNegativeInt
    """Processes that decode pictures beside the training process, and that measure rows before it."""


class TrainConfig(Section):
    lr: PositiveFloat
    lr_vision: PositiveFloat | None
    lr_mlp: PositiveFloat | None
    lr_llm: PositiveFloat | None
    """Learning rate of one component; null takes train.lr."""
    batch_size: PositiveInt
    """Samples, or with data.packing packs of max_length tokens, in one forward pass on each device."""
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
    attention: Kernel
    """auto is torch's own flash kernel on a GPU (Ampere or newer) in 16 bits, else grouped SDPA, which sdpa always is;
    the others need flash-attn."""
    checkpointing: Literal["none", "vision", "llm", "all"]
    """Where activations are recomputed in the backward pass instead of kept."""
    checkpoint_every: PositiveInt
    """Of the blocks there, every so many-th recomputes; 1 is all of them, 2 half of them."""
    offload_activations: bool
    """Let what is kept for the backward pass wait in the host's memory; needs a GPU."""
    compile: bool
    """Fuse what each block computes with torch.compile, once and for rows of any size."""
    liger: bool
    """Compute norms, gates and rotary embeddings by Liger's kernels (needs liger-kernel and a GPU)."""
    cache_vision: bool
    """Store what a frozen vision tower gives, before the training, in data.cache; steps then decode no media and skip
    the tower."""
    log_steps: PositiveInt
    eval_steps: PositiveInt | None
    """Evaluate every so many steps; null only before and after the run."""
    save_steps: PositiveInt | None
    """Save every so many steps; null only at the end."""
    keep: PositiveInt | None
    """How many checkpoints stay on disk; null keeps all."""
    resume: str
    """auto continues the newest checkpoint of this run_name, never starts anew, else a checkpoint folder."""


ReferenceKind = Literal["adapter", "model", "cached", "none"]
TWO_MODELS: tuple[ReferenceKind, ...] = ("adapter", "model")
"""With these each pass goes through two."""
PreferenceLoss = Literal[
    "sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down",
    "discopop", "sft",
]  # fmt: skip


def _as_entries(value: object) -> object:
    return value if value is None or isinstance(value, list | tuple) else [value]


class DpoConfig(Section):
    loss: Annotated[tuple[PreferenceLoss, ...], BeforeValidator(_as_entries), Field(min_length=1)]
    """One loss, or several whose weighted sum is the loss; sft is the likelihood of the chosen answer."""
    weights: Annotated[tuple[PositiveFloat, ...] | None, BeforeValidator(_as_entries)]
    """One for each loss; null weighs each 1."""
    beta: PositiveFloat
    """How strongly the model is held to the reference."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    """For robust, the share of pairs that are the wrong way round; for exo_pair, the doubt in each."""
    discopop_tau: PositiveFloat
    """How wide a margin is before discopop's exponential part sets in."""
    reference: Literal["auto", "adapter", "model", "cached", "none"]
    """What the model is compared with: itself without its adapters, a frozen copy, log-probabilities computed once
    before the run, or nothing; auto is adapter where there are any, else model."""
    wpo: bool
    """Weigh each pair by how likely the model is to give these two answers itself."""
    ld_alpha: Annotated[float, Field(ge=0, le=1)] | None
    """What a token counts beyond the length of the pair's shorter answer; null counts all alike."""


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
    grad_accum_dtype: Literal["fp32"] | None
    """The type in which gradients of several passes are added up; null takes the run's own precision."""
    communication_dtype: Literal["fp32"] | None
    """The type in which gradients are added up over the processes; null takes the run's own precision."""


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


def _as_names(value: object) -> object:
    entries = value if isinstance(value, list | tuple) else [value]
    return [str(entry) if isinstance(entry, int) else entry for entry in entries]


Names = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
"""One name or a list of them; a name that reads as a number is one, too."""


class InspectConfig(Section):
    source: Literal["train", "eval"]
    """Look at data.train or at data.eval."""
    samples: NonNegativeInt | None
    """How many to show; null shows all."""
    random: bool
    """Draw them by the seed, instead of taking the first."""
    ids: Names
    """Show the samples with these ids."""
    lines: Names
    """Show these rows: 17, or my.jsonl:17 where there are several files."""
    summary: bool
    """Measure the whole source, and tell about it."""
    file: str
    """Where output=html writes its page."""


class PlanConfig(Section):
    device: DeviceName
    """The kind of GPU that is planned for."""
    devices: PositiveInt
    """How many of them; a process runs on each."""
    device_gib: PositiveFloat | None
    """Memory of one, as nvidia-smi and torch count it; null takes what its kind has."""
    tflops: PositiveFloat | None
    """What one can do in a second at most, in bf16, dense, 10¹² operations; null takes its data sheet's figure."""
    mfu: Annotated[float, Field(gt=0, le=1)]
    """Share of it that is used; the run's own figure stands in its metrics."""
    visual: Annotated[float, Field(ge=0, lt=1)]
    """Share of visual tokens, where rows cannot be counted because the checkpoint's tokenizer is not at hand."""


class RunConfig(Section):
    run_name: str | None
    """Folder of the run below output_dir; null makes one from the recipe and the time."""
    output_dir: str
    seed: NonNegativeInt
    method: Literal["sft", "dpo"]
    """Learn answers, or prefer one of two answers to the other."""
    tune_mm_vision: bool
    tune_mm_mlp: bool
    tune_mm_llm: bool
    model: ModelConfig
    lora: LoraConfig
    data: DataConfig
    train: TrainConfig
    dpo: DpoConfig
    optim: OptimConfig
    deepspeed: DeepSpeedConfig
    logging: LoggingConfig
    output: Literal["text", "html", "json"]
    """How inspect tells: words on the terminal, a page, or a line of JSON for each sample; and plan: words, or JSON."""
    inspect: InspectConfig
    plan: PlanConfig

    def tuned(self, component: Component) -> bool:
        return {"vision": self.tune_mm_vision, "mlp": self.tune_mm_mlp, "llm": self.tune_mm_llm}[component]

    def adapted(self, component: Component) -> bool:
        return getattr(self.lora, component)

    @property
    def reference(self) -> ReferenceKind | None:
        """What is compared with; None where nothing is."""
        if self.method != "dpo":
            return None
        if self.dpo.reference != "auto":
            return self.dpo.reference
        return "adapter" if any(self.tuned(part) and self.adapted(part) for part in get_args(Component)) else "model"

    def learning_rate(self, component: Component) -> float:
        return getattr(self.train, f"lr_{component}") or self.train.lr
