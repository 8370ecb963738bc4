"""The whole configuration as one frozen tree. The defaults are in configs/, never here. This module does not import
torch."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from qwenvl_train.config.entries import HeldOut, SourceConfig, Sources
from qwenvl_train.config.scoring import EvalConfig
from qwenvl_train.config.section import AllowRemote, CountOrAuto, Section

Component = Literal["vision", "mlp", "llm"]
COMPONENTS: tuple[Component, ...] = get_args(Component)
Kernel = Literal["auto", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4"]
ThinkingMode = Literal["auto", "on", "off", "as_given"]


MICRO_BATCHES = 4
"""The number of micro-batches that train.accumulation=auto stands for, unless a small dataset needs a smaller one."""


class VideoConfig(Section):
    """The limits on videos. For a key that is null, the value of the checkpoint's video processor is used. The values
    that a video processor can hold are saved with every checkpoint."""

    fps: PositiveFloat | None
    """The number of frames taken from each second of a video."""
    min_frames: PositiveInt | None
    max_frames: PositiveInt | None
    min_pixels: PositiveInt | None
    max_pixels: PositiveInt | None
    """The limits on the pixels of one resized frame."""
    total_pixels: PositiveInt | None
    """The limit on the pixels of all resized frames of a clip together."""


class TextShape(Section):
    """The sizes of the language model. A size is null if the family has no such part, and may then be left out."""

    num_hidden_layers: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt | None = None
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    vocab_size: PositiveInt
    head_dim: PositiveInt | None = None
    num_experts: PositiveInt | None = None
    num_experts_per_tok: PositiveInt | None = None
    moe_intermediate_size: PositiveInt | None = None
    shared_expert_intermediate_size: PositiveInt | None = None
    linear_num_key_heads: PositiveInt | None = None
    linear_num_value_heads: PositiveInt | None = None
    linear_key_head_dim: PositiveInt | None = None
    linear_value_head_dim: PositiveInt | None = None


class VisionShape(Section):
    """The sizes of the vision tower and the mergers. A size is null if the family has no such part, and may then be
    left out."""

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
    """The sizes of a published model, with the names in its config.json. They are known before the model is fetched."""

    text: TextShape
    vision: VisionShape
    tie_word_embeddings: bool


class ModelConfig(Section):
    path: str
    """A local folder or a hub id, of a whole model or of a LoRA adapter. The family is read from the config of the
    model, never from this name."""
    revision: str | None
    """The branch, tag or commit of a hub id."""
    family: str | None
    """The model_type that the checkpoint must have. With null, any supported one is accepted."""
    min_pixels: PositiveInt | None
    max_pixels: PositiveInt | None
    """The limits on the pixels of one resized picture, saved with every checkpoint. With null, the checkpoint's own
    limit is kept."""
    video: VideoConfig
    quantize: Literal["none", "nf4"]
    """The storage of the frozen language model. nf4 stores it in 4 bits (needs bitsandbytes)."""
    shape: ShapeConfig | None
    """The sizes of the published model that an option of the group model names. With null, they are read from the
    checkpoint."""


class LoraConfig(Section):
    vision: bool
    mlp: bool
    llm: bool
    """Whether to train this component through adapters on its linear layers, instead of in full."""
    rank: PositiveInt
    alpha: PositiveFloat
    dropout: Annotated[float, Field(ge=0, lt=1)]
    rslora: bool
    """Whether to scale adapters by alpha / sqrt(rank) instead of alpha / rank."""
    existing: Literal["auto", "continue", "merge"]
    """What happens to the adapter if model.path is one. continue trains it further, and merge adds it to the weights of
    its base model before the training. auto is continue if a component is trained through adapters, and merge
    otherwise."""


def _as_mode(value: object) -> object:
    """Return the mode that YAML reads as a truth value."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class DataConfig(Section):
    train: Sources
    eval: HeldOut
    """The held-out samples. A share, such as 5%, takes them out of data.train, so that no image or video is on both
    sides."""
    streaming: bool
    """Whether to read data.train from front to back during training, instead of measuring every row before it. This
    needs train.max_steps."""
    max_length: PositiveInt | None
    """The largest length of a sample, in tokens. With null, there is no limit."""
    too_long: Literal["error", "skip", "downscale"]
    """What happens to a sample over max_length. downscale shrinks its pictures and clips until the sample fits."""
    packing: bool
    """Whether to fill each row with samples up to pack_length tokens, instead of with a fixed number of samples."""
    pack_length: CountOrAuto
    """The length to which packing fills rows, in tokens. It is at most max_length. auto is max_length, or less if an
    epoch would otherwise have few steps."""
    bucketing: bool
    """Whether to put samples of similar cost into the passes that run at the same time. It needs packing=false."""
    on_error: Literal["raise", "skip"]
    """What happens at a row that cannot be used. raise ends the run, and skip leaves the row out and lists it in
    skipped.jsonl."""
    max_skipped: NonNegativeInt
    """The largest number of skipped rows. If there are more, the run ends."""
    allow_remote: AllowRemote
    """Whether to fetch data files from s3, gs, hf and other addresses, and media from these, http and https. Copies are
    kept in data.cache. With private, rows may also name hosts in private networks and this machine."""
    vision_ids: bool
    """Whether to write "Picture 1: ", "Video 1: " and so on before each picture and clip."""
    thinking: Annotated[ThinkingMode, BeforeValidator(_as_mode)]
    """How answers with and without thoughts are written for a model that can think. auto writes them as the chat
    template does by default. With on, the model is always asked to think, so that an answer without thoughts teaches it
    to end them at once. off leaves all thoughts out. as_given also keeps those before the last question."""
    cache: str | None
    """The folder of the index of lengths, of fetched files, and of tables converted to arrow, which are full
    copies. With null, it is .cache below output_dir."""
    cache_pictures: bool
    """Whether to keep resized pictures in data.cache, so that later epochs and runs need not decode them again."""
    workers: NonNegativeInt
    """The number of processes that decode pictures beside the training process, and that measure rows before the
    training."""

    @property
    def eval_share(self) -> float | None:
        """The share of data.train that is held out, between 0 and 1, or None if data.eval does not give a share."""
        return float(self.eval.removesuffix("%")) / 100 if isinstance(self.eval, str) else None

    @property
    def eval_entries(self) -> tuple[SourceConfig, ...]:
        """The entries of data.eval. There are none if it is a share or null."""
        return () if self.eval is None or isinstance(self.eval, str) else self.eval


class TrainConfig(Section):
    lr: PositiveFloat
    lr_vision: PositiveFloat | None
    lr_mlp: PositiveFloat | None
    lr_llm: PositiveFloat | None
    """The learning rate of one component. With null, it is train.lr."""
    batch_size: PositiveInt
    """The number of samples in one forward pass on each device. With data.packing, it is the number of packs of
    data.pack_length tokens."""
    eval_batch_size: PositiveInt
    accumulation: CountOrAuto
    """The number of forward passes before one optimizer step. auto is 4, or less if an epoch would otherwise have few
    steps."""
    epochs: PositiveFloat | None
    max_steps: PositiveInt | None
    """The length of the training, in epochs or in steps. Exactly one of the two keys is set."""
    schedule: Literal["cosine", "linear", "constant"]
    warmup: NonNegativeFloat
    """The number of warm-up steps. A value below 1 is a share of all steps."""
    clip: NonNegativeFloat
    """The largest norm of the gradient. With 0, gradients are not clipped."""
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    attention: Kernel
    """The attention kernel. auto is torch's own flash kernel on a GPU (Ampere or newer) in 16 bits, and grouped SDPA
    otherwise. sdpa is always grouped SDPA. The other kernels need flash-attn."""
    checkpointing: Literal["none", "vision", "llm", "all"]
    """The part of the model whose activations are recomputed in the backward pass instead of kept."""
    checkpoint_every: PositiveInt
    """The number n, where every n-th block of that part recomputes its activations. With 1, all blocks do, and with 2,
    half of them."""
    offload_activations: bool
    """Whether to keep the tensors for the backward pass in the host's memory until it runs. This needs a GPU."""
    compile: bool
    """Whether to fuse the operations of each block with torch.compile. Each block is compiled once, for rows of any
    size."""
    liger: bool
    """Whether to compute norms, gates and rotary embeddings with Liger's kernels (needs liger-kernel and a GPU)."""
    cache_vision: bool
    """Whether to store the features of a frozen vision tower in data.cache before the training. Training steps then
    decode no media and skip the vision tower."""
    rehearse: bool
    """Whether to compute the largest micro-batches of an epoch before the first step, so that memory that does not
    suffice runs out then."""
    on_nan: Literal["stop", "skip"]
    """What happens at a step whose loss or gradient is not a number. It never changes the weights. stop ends the run,
    and skip goes on with the next step."""
    log_steps: PositiveInt
    eval_steps: PositiveInt | None
    """The number of steps between evaluations. With null, there are evaluations only before and after the run."""
    save_steps: PositiveInt | None
    """The number of steps between checkpoints. With null, a checkpoint is saved only at the end."""
    save_minutes: PositiveFloat | None
    """The time between checkpoints in minutes. It counts beside save_steps, and each checkpoint begins it anew."""
    grace_seconds: PositiveFloat
    """The time that the run has to end its step and save after SIGTERM or SIGUSR1, in seconds."""
    keep: PositiveInt | None
    """The number of checkpoints that stay on disk: the newest, the best, and then the next newest. With null, all of
    them stay."""
    best_metric: str
    """The metric of the evaluation at a checkpoint's own step by which the best checkpoint is chosen."""
    patience: PositiveInt | None
    """The number of evaluations without a better best_metric after which the training ends. With null, it goes on to
    the last step."""
    stall_seconds: PositiveFloat | None
    """The time without progress, in seconds, after which the run ends and prints what each process was doing. With
    null, there is no limit."""
    resume: str
    """The checkpoint to continue. With auto, it is the newest checkpoint of this run_name. With never, the run starts
    from the beginning. Any other value is the path of a checkpoint folder."""


ReferenceKind = Literal["adapter", "model", "cached", "none"]
OffloadDevice = Literal["none", "cpu", "nvme"]
TWO_MODELS: tuple[ReferenceKind, ...] = ("adapter", "model")
"""The kinds of reference with which each pass goes through two models."""
PreferenceLoss = Literal[
    "sigmoid", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down",
    "discopop", "sft",
]  # fmt: skip


def _as_entries(value: object) -> object:
    return value if value is None or isinstance(value, list | tuple) else [value]


class DpoConfig(Section):
    loss: Annotated[tuple[PreferenceLoss, ...], BeforeValidator(_as_entries), Field(min_length=1)]
    """One loss, or several losses whose weighted sum is used. sft is the likelihood of the chosen answer."""
    weights: Annotated[tuple[PositiveFloat, ...] | None, BeforeValidator(_as_entries)]
    """One weight for each loss. With null, each weight is 1."""
    beta: PositiveFloat
    """The strength with which the model is kept close to the reference."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    """For robust, the share of pairs whose answers are the wrong way round. For exo_pair, the doubt in each pair."""
    discopop_tau: PositiveFloat
    """The scale of the margin at which the exponential part of discopop sets in."""
    reference: Literal["auto", "adapter", "model", "cached", "none"]
    """What the model is compared with. adapter is the model itself without its adapters, model is a frozen copy, cached
    is log-probabilities computed once before the run, and none is nothing. auto is adapter if there are adapters, and
    model otherwise."""
    wpo: bool
    """Whether to weight each pair by how likely the model is to give these two answers itself."""
    ld_alpha: Annotated[float, Field(ge=0, le=1)] | None
    """The weight of a token beyond the length of the shorter answer of the pair. With null, all tokens have the same
    weight."""


class OptimConfig(Section):
    name: Literal["adamw", "adamw_8bit"]
    weight_decay: NonNegativeFloat
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    eps: PositiveFloat


class DeepSpeedConfig(Section):
    stage: Literal[0, 1, 2, 3]
    """The ZeRO stage. 0 is off, 1 shards the optimizer state over the processes, 2 the gradients as well, and 3 the
    weights as well."""
    offload_optimizer: OffloadDevice
    """Where the optimizer state is kept, and its step computed. cpu is the host's memory. nvme is a disk, and needs
    stage 3."""
    offload_param: OffloadDevice
    """Where weights are kept while no layer uses them. It needs stage 3."""
    nvme_path: str | None
    """The folder on a local NVMe disk that nvme stands for. Each process writes files of its own to it."""
    overlap_comm: bool
    bucket_elements: PositiveInt
    """The number of elements in one communication."""
    whole_elements: NonNegativeInt
    """The number of elements up to which stage 3 leaves a weight whole on every device."""
    grad_accum_dtype: Literal["fp32"] | None
    """The type in which gradients of several passes are added up. With null, it is the precision of the run."""
    communication_dtype: Literal["fp32"] | None
    """The type in which gradients are added up over the processes. With null, it is the precision of the run."""
    gather_on_save: bool
    """Whether a checkpoint of stage 3 has the whole weights, which the first process gathers, beside each process's
    share of them."""

    @property
    def saves_whole_weights(self) -> bool:
        return self.stage < 3 or self.gather_on_save


class WandbConfig(Section):
    mode: Literal["auto", "online", "offline", "disabled"]
    project: str
    entity: str | None
    group: str | None
    tags: tuple[str, ...]
    artifacts: Literal["none", "best", "all"]
    """Which checkpoints are uploaded as artifacts, without the state of the optimizer."""


class LoggingConfig(Section):
    wandb: WandbConfig
    tensorboard: bool
    """Whether the metrics and answers are also written for TensorBoard, in tensorboard/ of the run folder."""
    predictions: NonNegativeInt
    """The number of held-out samples for which the report shows a generated answer."""


class RunConfig(Section):
    run_name: str | None
    """The name of the run folder below output_dir. With null, it is made from the recipe and the time."""
    output_dir: str
    seed: NonNegativeInt
    method: Literal["sft", "dpo"]
    """The training method. sft learns answers, and dpo learns to prefer one of two answers to the other."""
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
    eval: EvalConfig

    def tuned(self, component: Component) -> bool:
        return {"vision": self.tune_mm_vision, "mlp": self.tune_mm_mlp, "llm": self.tune_mm_llm}[component]

    def adapted(self, component: Component) -> bool:
        return getattr(self.lora, component)

    @property
    def has_adapters(self) -> bool:
        """Whether any component is trained through adapters."""
        return any(self.tuned(component) and self.adapted(component) for component in COMPONENTS)

    @property
    def cache_folder(self) -> Path:
        return Path(self.data.cache) if self.data.cache else Path(self.output_dir) / ".cache"

    @property
    def accumulation(self) -> int:
        """The number of micro-batches in a step of one process. Before `data.order.step_size` has fitted auto to the
        data, auto is its largest value."""
        return MICRO_BATCHES if self.train.accumulation == "auto" else self.train.accumulation

    @property
    def pack_length(self) -> int | None:
        """The length of packed rows in tokens, or None without packing. Before `data.order.step_size` has fitted auto
        to the data, auto is its largest value."""
        if not self.data.packing:
            return None
        return self.data.max_length if self.data.pack_length == "auto" else self.data.pack_length

    @property
    def reference(self) -> ReferenceKind | None:
        """The kind of reference that the model is compared with, or None if the method is not dpo."""
        if self.method != "dpo":
            return None
        if self.dpo.reference != "auto":
            return self.dpo.reference
        return "adapter" if self.has_adapters else "model"

    def learning_rate(self, component: Component) -> float:
        return getattr(self.train, f"lr_{component}") or self.train.lr
