"""What a run takes of each device's memory, by part, told from sizes alone.

Weights, gradients and optimizer state are counted parameter by parameter, exactly without DeepSpeed. What passes keep
is told by `activations.trace`. The worst of a few moments counts: the end of the forward pass, the loss, the backward
pass of one block, the embeddings' gradient, the optimizer's step.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil

import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE

from qwenvl_train.config.schema import TWO_MODELS, Component, RunConfig
from qwenvl_train.families.family import Family
from qwenvl_train.model import forward
from qwenvl_train.model.build import in_float32
from qwenvl_train.model.checkpointing import recomputed_parts
from qwenvl_train.model.components import ComponentRow, component_table, mode_of, select_trained
from qwenvl_train.model.load import DTYPES
from qwenvl_train.model.shapes import tower_width
from qwenvl_train.verbs.plan.activations import Block, Traced, trace

GIB = 2**30
CONTEXT = GIB // 2
"""What CUDA takes for itself, and again what NCCL does where devices talk to each other."""
GAPS = 0.05
"""Of all else: what lies unused between pieces of memory."""
_LIVE = 10**9
"""Parameters that ZeRO-3 keeps gathered at most, by DeepSpeed's default."""
_SMALL = 4096
"""8-bit AdamW keeps smaller tensors in 32 bits."""


@dataclass(frozen=True)
class Load:
    """What is in one forward pass on one device."""

    tokens: int
    patches: int
    supervised: int


@dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    weights: int
    reference: int
    """A frozen copy of them to compare with, where there is one."""
    gradients: int
    optimizer: int
    """With DeepSpeed, its float32 copies of trained weights included."""
    exchange: int
    """What devices send each other lies here."""
    activations: int
    """Kept for the backward pass."""
    work: int
    """On top of it at the worst moment."""
    moment: str
    loss: int
    """What the loss alone would take; it counts where it is the worst moment."""
    reserve: int
    """Of CUDA, and unused between pieces of memory."""

    @property
    def counted(self) -> int:
        """What torch's own figure of the peak counts."""
        parts = (self.gradients, self.optimizer, self.exchange, self.activations, self.work)
        return self.weights + self.reference + sum(parts)

    @property
    def total(self) -> int:
        return self.counted + self.reserve

    def as_dict(self) -> dict[str, int | str]:
        return asdict(self) | {"total": self.total}


@dataclass(frozen=True)
class Sized:
    """A model's parameters without their values."""

    rows: list[ComponentRow]
    trained: tuple[int, ...]
    """Elements of each tensor."""
    frozen: tuple[int, ...]
    four_bit: tuple[int, ...]


@dataclass(frozen=True)
class Recomputed:
    """Of each block whether the backward pass computes it again."""

    vision: tuple[bool, ...]
    decoder: tuple[bool, ...]


def sized(architecture: PreTrainedConfig, family: Family, config: RunConfig) -> Sized:
    """Through the very functions that freeze, adapt and count for a run."""
    with torch.device("meta"):
        bare = AutoModelForImageTextToText.from_config(architecture, dtype=torch.bfloat16)
        quantized = set(map(id, _quantized(bare, family))) if config.model.quantize == "nf4" else set()
        model: PreTrainedModel | PeftModel = select_trained(bare, family, config)
    sizes: dict[str, list[int]] = {"trained": [], "frozen": [], "four_bit": []}
    for parameter in model.parameters():
        kind = "trained" if parameter.requires_grad else "four_bit" if id(parameter) in quantized else "frozen"
        sizes[kind].append(parameter.numel())
    return Sized(component_table(model, family, config), *(tuple(sizes[kind]) for kind in sizes))


def _quantized(model: PreTrainedModel, family: Family) -> Iterator[torch.nn.Parameter]:
    """What bitsandbytes reaches: `model/load.py` leaves out the vision side and the output layer."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head" and not name.startswith(family.vision_path):
            yield module.weight


def recomputed(config: RunConfig, architecture: PreTrainedConfig) -> Recomputed:
    parts, every = recomputed_parts(config), config.train.checkpoint_every

    def of(part: Component, blocks: int) -> tuple[bool, ...]:
        return tuple(part in parts and block % every == 0 for block in range(blocks))

    return Recomputed(
        vision=of("vision", architecture.vision_config.depth),
        decoder=of("llm", architecture.text_config.num_hidden_layers),
    )


def weights(sizes: Sized, config: RunConfig, precision: str, devices: int) -> int:
    """Without DeepSpeed, what is trained is in float32."""
    half = DTYPES[precision].itemsize
    trained, frozen = sum(sizes.trained), sum(sizes.frozen) * half + sum(map(_in_four_bits, sizes.four_bit))
    match config.deepspeed.stage:
        case 0:
            return trained * 4 + frozen
        case 2:
            return trained * half + frozen
        case 3:
            return ceil((trained * half + frozen) / devices)


def reference(sizes: Sized, architecture: PreTrainedConfig, config: RunConfig, precision: str, devices: int) -> int:
    """Of dpo.reference=model; norms that it has in float32 are too small to count."""
    if config.reference != "model":
        return 0
    four_bit = sum(sizes.four_bit)
    published = sum(row.parameters for row in sizes.rows)
    whole = (published - four_bit) * DTYPES[precision].itemsize + sum(map(_in_four_bits, sizes.four_bit))
    if "llm" in in_float32(config, precision):
        text = architecture.text_config
        whole += text.vocab_size * text.hidden_size * (4 - DTYPES[precision].itemsize)
    return ceil(whole / devices) if config.deepspeed.stage == 3 else whole


def gradients(sizes: Sized, config: RunConfig, precision: str, devices: int) -> int:
    """With DeepSpeed, each device's share of them."""
    if config.deepspeed.stage == 0:
        return sum(sizes.trained) * 4
    of_one = 4 if config.deepspeed.grad_accum_dtype == "fp32" else DTYPES[precision].itemsize
    return ceil(sum(sizes.trained) * of_one / devices)


def optimizer(sizes: Sized, config: RunConfig, devices: int) -> int:
    """Two moments of each trained weight; DeepSpeed's shares are flat tensors."""
    if config.deepspeed.stage == 0:
        return sum(_state(size, config) for size in sizes.trained)
    share = ceil(sum(sizes.trained) / devices)
    return share * 4 + _state(share, config)


def _state(elements: int, config: RunConfig) -> int:
    if config.optim.name == "adamw_8bit" and elements >= _SMALL:
        return 2 * (elements + 4 * ceil(elements / 256))
    counter = 4 if config.optim.name == "adamw" else 0
    return 8 * elements + counter


def _in_four_bits(elements: int) -> int:
    """Two in a byte, a scale for each 64 in a byte, one in float32 for each 256 of these."""
    scales = ceil(elements / 64)
    return ceil(elements / 2) + scales + 4 * ceil(scales / 256)


def exchange(sizes: Sized, config: RunConfig, precision: str, devices: int) -> int:
    """The buckets in which gradients travel, where they do not live in them; under ZeRO-3 also gathered weights."""
    if config.deepspeed.stage == 0:
        return 0
    half, trained = DTYPES[precision].itemsize, sum(sizes.trained)
    elements = min(config.deepspeed.bucket_elements, trained)
    bucket = elements * half * (2 if config.deepspeed.overlap_comm else 1)
    if config.deepspeed.communication_dtype == "fp32" and half < 4:
        bucket += elements * 4
    gathered = min(_LIVE, trained + sum(sizes.frozen)) * half if config.deepspeed.stage == 3 and devices > 1 else 0
    return bucket + gathered


@dataclass(frozen=True)
class Moment:
    name: str
    kept: int
    work: int

    @property
    def total(self) -> int:
        return self.kept + self.work


def moments(
    traced: Traced, blocks: Recomputed, architecture: PreTrainedConfig, config: RunConfig, precision: str, load: Load
) -> tuple[Moment, ...]:
    """From the forward to the backward pass, in the order in which they come."""
    text, half = architecture.text_config, DTYPES[precision].itemsize
    stream = traced.decoder.entry
    tower = traced.patches.kept + _kept(traced.vision, blocks.vision) + traced.merger.kept
    kept = tower + _kept(traced.decoder, blocks.decoder) + traced.norm.kept
    if config.train.offload_activations:
        tower = kept = 0  # it waits in the host's memory
    learned = load.supervised * text.hidden_size
    chunk = min(forward.CUDA_CHUNK, text.vocab_size)
    masters, in_full = config.deepspeed.stage == 0, mode_of("llm", config) == "full"
    table = text.vocab_size * text.hidden_size
    tile = min(load.supervised, TOKEN_CHUNK_SIZE) * forward.CUDA_CHUNK * half
    part = chunk * text.hidden_size * half if masters and in_full and half < 4 else 0
    head = table * 4 + (0 if masters else table * half) if in_full else 0
    scored = tile + part + 4 * learned
    once = config.train.cache_vision or (config.reference in TWO_MODELS and not config.tuned("vision"))
    held = stored_features(architecture, load.patches, precision) if once else 0
    found = [
        Moment("vision tower, forward", 0, 0 if config.train.cache_vision else traced.vision.most),
        Moment("end of the forward pass", kept, tile + part + learned * half),
        Moment("loss, backward", kept, scored + head + 2 * stream),
        Moment("one decoder block, backward", kept, _work(traced.decoder, blocks.decoder)),
        Moment("embeddings, backward", tower, stream + (table * (4 if masters else half) if in_full else 0)),
    ]
    if traced.vision.kept:
        found.append(Moment("one vision block, backward", tower, _work(traced.vision, blocks.vision)))
    if traced.merger.kept:
        found.append(Moment("merger, backward", tower, traced.merger.most - traced.merger.kept))
    return tuple(replace(moment, kept=moment.kept + held) for moment in found)


def stored_features(architecture: PreTrainedConfig, patches: int, precision: str) -> int:
    """With train.cache_vision, of the disk; and of a device from a row's coming to its end."""
    levels = 1 + len(getattr(architecture.vision_config, "deepstack_visual_indexes", ()))
    return levels * patches * tower_width(architecture) * DTYPES[precision].itemsize


def _kept(block: Block, again: tuple[bool, ...]) -> int:
    return sum(block.entry if recomputing else block.kept for recomputing in again)


def _work(block: Block, again: tuple[bool, ...]) -> int:
    return max(block.most - (block.entry if recomputing else block.kept) for recomputing in again)


def traced_pass(
    architecture: PreTrainedConfig, family: Family, config: RunConfig, precision: str, load: Load
) -> Traced:
    """Patches are merged by some; a row without media carries a picture of so many."""
    merged = architecture.vision_config.spatial_merge_size**2
    patches = max(1, ceil(load.patches / merged)) * merged
    return trace(architecture, family, config, precision, load.tokens, patches)


def memory(
    sizes: Sized,
    traced: Traced,
    architecture: PreTrainedConfig,
    config: RunConfig,
    precision: str,
    devices: int,
    load: Load,
) -> Memory:
    """`traced` is of `load` under `config`."""
    passing = moments(traced, recomputed(config, architecture), architecture, config, precision, load)
    loss = next(moment for moment in passing if moment.name == "loss, backward").work
    if config.deepspeed.stage:
        # Its shares of the gradients are turned to float32 for the step.
        passing += (Moment("optimizer step", 0, ceil(sum(sizes.trained) / devices) * 4),)
    worst = max(passing, key=lambda moment: moment.total)
    parts = (
        weights(sizes, config, precision, devices),
        reference(sizes, architecture, config, precision, devices),
        gradients(sizes, config, precision, devices),
        optimizer(sizes, config, devices),
        exchange(sizes, config, precision, devices),
        worst.kept,
        worst.work,
    )
    reserve = CONTEXT * (2 if devices > 1 else 1) + int(GAPS * sum(parts))
    return Memory(*parts, moment=worst.name, loss=loss, reserve=reserve)
