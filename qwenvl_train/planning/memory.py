"""Estimate from sizes alone how much memory a run takes on each device, part by part.

Weights, gradients and optimizer state are counted parameter by parameter; without DeepSpeed these counts are exact.
`activations.trace` measures what passes keep for the backward pass. The estimate takes the worst of several moments,
among them the end of the forward pass, the loss, the backward pass of one block, the gradient of the embeddings, and
the optimizer step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from math import ceil

import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE

from qwenvl_train.config.schema import COMPONENTS, TWO_MODELS, Component, RunConfig
from qwenvl_train.families.family import Family
from qwenvl_train.model import forward
from qwenvl_train.model.build import in_float32
from qwenvl_train.model.checkpointing import recomputed_parts
from qwenvl_train.model.components import ComponentRow, component_of, component_table, is_shadow, mode_of
from qwenvl_train.model.load import DTYPES
from qwenvl_train.model.shapes import tower_width
from qwenvl_train.model.trainable import select_trained
from qwenvl_train.planning.activations import Block, Traced, trace

GIB = 2**30
CONTEXT = GIB // 2
"""Bytes that CUDA takes for itself. NCCL takes as many again if there is more than one device."""
GAPS = 0.05
"""Memory that lies unused between allocations, as a share of all other memory except CONTEXT."""
_LIVE = 10**9
"""Largest number of parameters that ZeRO-3 keeps gathered, by DeepSpeed's default."""
_SMALL = 4096
"""Number of elements below which 8-bit AdamW keeps the state of a tensor in 32 bits."""


@dataclass(frozen=True)
class Load:
    """The size of one forward pass on one device, in tokens, patches and supervised (learned) tokens."""

    tokens: int
    patches: int
    supervised: int

    def at_least(self, other: "Load") -> "Load":
        """Return the larger one of each number."""
        return Load(*map(max, astuple(self), astuple(other)))


@dataclass(frozen=True)
class TracedPass:
    """A forward and a backward pass on one device: its size and the memory of each kind of block in it."""

    load: Load
    traced: Traced


@dataclass(frozen=True)
class Memory:
    """The memory that a run takes on each device, in bytes."""

    weights: int
    reference: int
    """Bytes of the reference model, a frozen copy of the weights. 0 if the run has none."""
    gradients: int
    optimizer: int
    """Bytes of the optimizer state. With DeepSpeed, they include its float32 copies of trained weights."""
    exchange: int
    """Bytes of the buffers through which devices exchange gradients and weights."""
    activations: int
    """Bytes kept for the backward pass at the worst moment."""
    work: int
    """Bytes needed in addition to `activations` at the worst moment."""
    moment: str
    """Name of the worst moment."""
    loss: int
    """Bytes that the loss needs in addition to activations. They are part of the total only if the loss is the worst
    moment."""
    reserve: int
    """Bytes that CUDA and NCCL take for themselves, and bytes unused between allocations."""
    host: int
    """Bytes of the host's memory that hold what is kept there instead of on the device. They are not part of the
    total."""

    @property
    def counted(self) -> int:
        """Bytes that torch counts in its own figure of peak memory."""
        parts = (self.gradients, self.optimizer, self.exchange, self.activations, self.work)
        return self.weights + self.reference + sum(parts)

    @property
    def total(self) -> int:
        return self.counted + self.reserve

    def as_dict(self) -> dict[str, int | str]:
        return asdict(self) | {"total": self.total}


@dataclass(frozen=True)
class Sized:
    """The sizes of a model's parameters."""

    rows: list[ComponentRow]
    trained: tuple[int, ...]
    """Number of elements of each trained tensor."""
    frozen: tuple[int, ...]
    """Number of elements of each frozen tensor that is not in four bits."""
    four_bit: tuple[int, ...]
    """Number of elements of each frozen tensor in four bits."""
    used: dict[Component, tuple[int, ...]]
    """Number of elements of each tensor that a forward pass uses: all but those that PEFT keeps beside trained ones."""


@dataclass(frozen=True)
class Recomputed:
    """For each block of the vision tower and of the language model, whether the backward pass computes it again."""

    vision: tuple[bool, ...]
    decoder: tuple[bool, ...]


def sized(architecture: PreTrainedConfig, family: Family, config: RunConfig) -> Sized:
    """Return the sizes of the model, computed by the functions that freeze, adapt and count in a run."""
    with torch.device("meta"):
        bare = AutoModelForImageTextToText.from_config(architecture, dtype=torch.bfloat16)
        quantized = set(map(id, _quantized(bare, family))) if config.model.quantize == "nf4" else set()
        model: PreTrainedModel | PeftModel = select_trained(bare, family, config)
    sizes: dict[str, list[int]] = {"trained": [], "frozen": [], "four_bit": []}
    used: dict[Component, list[int]] = {component: [] for component in COMPONENTS}
    for name, parameter in model.named_parameters():
        kind = "trained" if parameter.requires_grad else "four_bit" if id(parameter) in quantized else "frozen"
        sizes[kind].append(parameter.numel())
        if not is_shadow(name):
            used[component_of(name, family)].append(parameter.numel())
    return Sized(
        rows=component_table(model, family, config),
        trained=tuple(sizes["trained"]),
        frozen=tuple(sizes["frozen"]),
        four_bit=tuple(sizes["four_bit"]),
        used={component: tuple(found) for component, found in used.items()},
    )


def _quantized(model: PreTrainedModel, family: Family) -> Iterator[torch.nn.Parameter]:
    """Yield the weights that bitsandbytes quantizes. `model/load.py` leaves out the vision tower, the mergers and the
    output layer."""
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
    """Return the bytes of the weights on each device. Without DeepSpeed, trained weights are in float32. Those that are
    kept elsewhere take no room on a device, except when a layer uses them, which `exchange` counts."""
    half = DTYPES[precision].itemsize
    trained, frozen = sum(sizes.trained), sum(sizes.frozen) * half + sum(map(_in_four_bits, sizes.four_bit))
    match config.deepspeed.stage:
        case 0:
            return trained * 4 + frozen
        case 1 | 2:
            return trained * half + frozen
        case 3:
            return 0 if config.deepspeed.offload_param != "none" else ceil((trained * half + frozen) / devices)


def reference(sizes: Sized, architecture: PreTrainedConfig, config: RunConfig, precision: str, devices: int) -> int:
    """Return the bytes of the reference model on each device, which only dpo.reference=model needs.

    Norms that it keeps in float32 are too small to count.
    """
    if config.reference != "model":
        return 0
    four_bit = sum(sizes.four_bit)
    published = sum(row.parameters for row in sizes.rows)
    whole = (published - four_bit) * DTYPES[precision].itemsize + sum(map(_in_four_bits, sizes.four_bit))
    if "llm" in in_float32(config, precision):
        text = architecture.text_config
        whole += text.vocab_size * text.hidden_size * (4 - DTYPES[precision].itemsize)
    if config.deepspeed.offload_param != "none":
        return 0
    return ceil(whole / devices) if config.deepspeed.stage == 3 else whole


def gradients(sizes: Sized, config: RunConfig, precision: str, devices: int) -> int:
    """Return the bytes of the gradients on each device. From stage 2 on, each device keeps only its share of them, and
    none if the optimizer's step is computed in the host's memory."""
    if config.deepspeed.stage == 0:
        return sum(sizes.trained) * 4
    of_one = 4 if config.deepspeed.grad_accum_dtype == "fp32" else DTYPES[precision].itemsize
    if config.deepspeed.stage == 1:
        return sum(sizes.trained) * of_one
    return 0 if config.deepspeed.offload_optimizer != "none" else ceil(sum(sizes.trained) * of_one / devices)


def optimizer(sizes: Sized, config: RunConfig, devices: int) -> int:
    """Return the bytes of the optimizer state on each device: two moments for each trained weight.

    With DeepSpeed, the share of each device is one flat tensor, and a float32 copy of the weights is added.
    """
    if config.deepspeed.stage == 0:
        return sum(_state(size, config) for size in sizes.trained)
    return 0 if config.deepspeed.offload_optimizer != "none" else _sharded_state(sizes, config, devices)


def _sharded_state(sizes: Sized, config: RunConfig, devices: int) -> int:
    share = ceil(sum(sizes.trained) / devices)
    return share * 4 + _state(share, config)


def host(sizes: Sized, config: RunConfig, precision: str, devices: int) -> int:
    """Return the bytes of the host's memory that each process takes for what is kept there instead of on its device:
    optimizer state, gradients in float32, and weights. What is kept on a disk is not counted, nor are its buffers."""
    half, trained, found = DTYPES[precision].itemsize, sum(sizes.trained), 0
    if config.deepspeed.offload_optimizer == "cpu":
        found += _sharded_state(sizes, config, devices) + 4 * ceil(trained / devices)
    if config.deepspeed.offload_param == "cpu":
        found += ceil((trained + sum(sizes.frozen)) * half / devices)
    return found


def _state(elements: int, config: RunConfig) -> int:
    if config.optim.name == "adamw_8bit" and elements >= _SMALL:
        return 2 * (elements + 4 * ceil(elements / 256))
    counter = 4 if config.optim.name == "adamw" else 0
    return 8 * elements + counter


def _in_four_bits(elements: int) -> int:
    """Return the bytes of a tensor in four bits: half a byte for each element, a one-byte scale for each 64 elements,
    and a float32 scale for each 256 of these scales."""
    scales = ceil(elements / 64)
    return ceil(elements / 2) + scales + 4 * ceil(scales / 256)


def exchange(sizes: Sized, config: RunConfig, precision: str, devices: int) -> int:
    """Return the bytes of the buckets in which DeepSpeed sends gradients and, under ZeRO-3, of gathered weights.

    Without DeepSpeed this is 0, because the gradients lie in the buckets.
    """
    if config.deepspeed.stage == 0:
        return 0
    half, trained = DTYPES[precision].itemsize, sum(sizes.trained)
    elements = min(config.deepspeed.bucket_elements, trained)
    bucket = elements * half * (2 if config.deepspeed.overlap_comm else 1)
    if config.deepspeed.communication_dtype == "fp32" and half < 4:
        bucket += elements * 4
    copied = devices > 1 or config.deepspeed.offload_param != "none"
    gathered = min(_LIVE, trained + sum(sizes.frozen)) * half if config.deepspeed.stage == 3 and copied else 0
    return bucket + gathered


@dataclass(frozen=True)
class Moment:
    """A point in a step at which memory may reach its peak."""

    name: str
    kept: int
    """Bytes kept for the backward pass."""
    work: int
    """Bytes needed in addition to `kept`."""

    @property
    def total(self) -> int:
        return self.kept + self.work


def moments(
    passed: TracedPass, blocks: Recomputed, architecture: PreTrainedConfig, config: RunConfig, precision: str
) -> tuple[Moment, ...]:
    """Return the moments at which memory may reach its peak, in the order in which they come in a step."""
    load, traced = passed.load, passed.traced
    text, half = architecture.text_config, DTYPES[precision].itemsize
    stream = traced.decoder[0].entry
    tower_blocks = [traced.vision] * len(blocks.vision)
    tower = traced.patches.kept + _kept(tower_blocks, blocks.vision) + traced.merger.kept
    kept = tower + _kept(traced.decoder, blocks.decoder) + traced.norm.kept
    if config.train.offload_activations:
        tower = kept = 0  # kept activations are in the host's memory
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
        found.append(Moment("one vision block, backward", tower, _work(tower_blocks, blocks.vision)))
    if traced.merger.kept:
        found.append(Moment("merger, backward", tower, traced.merger.most - traced.merger.kept))
    return tuple(replace(moment, kept=moment.kept + held) for moment in found)


def stored_features(architecture: PreTrainedConfig, patches: int, precision: str) -> int:
    """Return the bytes of the vision features of `patches` patches.

    With train.cache_vision the features take this much of the disk. A device holds the features of a packed row from
    the arrival of the row until the end of its passes.
    """
    levels = 1 + len(getattr(architecture.vision_config, "deepstack_visual_indexes", ()))
    return levels * patches * tower_width(architecture) * DTYPES[precision].itemsize


def _kept(blocks: Sequence[Block], again: tuple[bool, ...]) -> int:
    return sum(block.entry if recomputing else block.kept for block, recomputing in zip(blocks, again, strict=True))


def _work(blocks: Sequence[Block], again: tuple[bool, ...]) -> int:
    return max(
        block.most - (block.entry if recomputing else block.kept)
        for block, recomputing in zip(blocks, again, strict=True)
    )


def traced_pass(
    architecture: PreTrainedConfig, family: Family, config: RunConfig, precision: str, load: Load
) -> TracedPass:
    """Trace a pass of the size `load`.

    The patches are rounded up to whole groups of merged patches. A packed row without media carries a blank picture,
    which is one such group.
    """
    merged = architecture.vision_config.spatial_merge_size**2
    patches = max(1, ceil(load.patches / merged)) * merged
    return TracedPass(load, trace(architecture, family, config, precision, load.tokens, patches))


def memory(
    sizes: Sized,
    passed: TracedPass,
    architecture: PreTrainedConfig,
    config: RunConfig,
    precision: str,
    devices: int,
) -> Memory:
    """Return the memory of a run on each device. `passed` must have been traced under `config`."""
    passing = moments(passed, recomputed(config, architecture), architecture, config, precision)
    loss = next(moment for moment in passing if moment.name == "loss, backward").work
    if config.deepspeed.stage and config.deepspeed.offload_optimizer == "none":
        # DeepSpeed converts its shares of the gradients to float32 for the step.
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
    in_host = host(sizes, config, precision, devices)
    return Memory(*parts, moment=worst.name, loss=loss, reserve=reserve, host=in_host)
