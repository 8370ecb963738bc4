"""Measure the memory that a pass keeps for its backward pass, with tensors that have a size and no content.

One block of each kind runs forward and backward as in training, and a ledger records every allocation and release. The
count therefore follows what the blocks do. It includes the 16-bit copies that autocast makes of trained weights.
"""

import types
import weakref
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface, AutoModelForImageTextToText, PreTrainedConfig

from qwenvl_train.batch import CHUNK
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.families.family import Family
from qwenvl_train.model.attention import set_attention
from qwenvl_train.model.autocast import autocast, autocast_to, use_autocast_once
from qwenvl_train.model.components import mode_of
from qwenvl_train.model.linear_attention import use_packed_linear_attention
from qwenvl_train.model.load import DTYPES
from qwenvl_train.model.patch_embed import use_linear_patches
from qwenvl_train.model.shapes import tower_width
from qwenvl_train.model.trainable import select_trained

# Vision towers pass the starts of pieces only to an attention function whose name contains "flash".
_ATTENTION = "qwenvl_flash_traced"
_UNREAD: Any = object()
"""What the stand-ins below get instead of Segments."""


@dataclass(frozen=True)
class Block:
    """The memory of one block, in bytes."""

    entry: int
    """Bytes of the input. A block that the backward pass computes again keeps only these."""
    kept: int
    """Bytes kept from the forward to the backward pass by a block that is not computed again."""
    most: int
    """Peak bytes during the backward pass, including `kept`. Without a backward pass, the peak of the forward pass."""


@dataclass(frozen=True)
class Traced:
    """The memory of each kind of block in one pass through the model."""

    patches: Block
    """The patch embedding."""
    vision: Block
    """One block of the vision tower."""
    merger: Block
    """All mergers together."""
    decoder: tuple[Block, ...]
    """The blocks of the language model. Blocks of one kind are equal."""
    norm: Block
    """The final norm, after all decoder blocks."""


def trace(
    architecture: PreTrainedConfig, family: Family, config: RunConfig, precision: str, tokens: int, patches: int
) -> Traced:
    """Measure one block of each kind for a pass of `tokens` tokens and `patches` patches.

    `patches` is at least the number of patches in a blank picture.
    """
    kinds = _kinds_of_blocks(architecture)
    small = _of_one_block(architecture, list(dict.fromkeys(kinds)))
    AttentionInterface.register(_ATTENTION, _attention)
    masters = config.deepspeed.stage == 0
    halved = autocast_to(config, precision)
    with torch.device("meta"):
        bare = AutoModelForImageTextToText.from_config(small, dtype=DTYPES[precision])
        set_attention(bare, _ATTENTION)
        use_linear_patches(bare.model.visual.patch_embed.proj)
        use_autocast_once(bare, family)
        use_packed_linear_attention(bare.model.language_model)
        use_stand_in_for_kernels(bare)
        model = select_trained(bare, family, config, float32_adapters=masters).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _take_place(model, masters)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm) and halved is not None:
                module.forward = partial(_layer_norm, module)
        visual, language = bare.model.visual, bare.model.language_model
        vision, width = architecture.vision_config, tower_width(architecture)
        entering, stream = _dtype_in_tower(visual, halved), language.embed_tokens.weight.dtype
        angles = torch.empty(patches, width // vision.num_heads)
        rotations = torch.empty(1, tokens, 2 * len(language.rotary_emb.inv_freq), dtype=stream)
        mergers = [visual.merger, *getattr(visual, "deepstack_merger_list", ())]

        def in_tower(x: torch.Tensor) -> torch.Tensor:
            return visual.blocks[0](x, cu_seqlens=None, max_seqlen=1, position_embeddings=(angles, angles))

        def in_mergers(x: torch.Tensor) -> torch.Tensor:
            return torch.stack([merger(x).sum() for merger in mergers])

        def in_decoder(block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
            return block(x, position_embeddings=(rotations, rotations), cu_seq_lens_q=_UNREAD)

        pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        cut = torch.Size((patches, pixels))
        in_tower_shape, in_decoder_shape = (patches, width), (1, tokens, architecture.text_config.hidden_size)
        decoder = {
            kind: _run(partial(in_decoder, block), torch.Size(in_decoder_shape), stream, True, halved)
            for kind, block in zip(dict.fromkeys(kinds), language.layers, strict=True)
        }
        flows = mode_of("vision", config) != "frozen"
        return Traced(
            patches=_run(visual.patch_embed, cut, DTYPES[precision], False, halved),
            vision=_run(in_tower, torch.Size(in_tower_shape), entering, flows, halved),
            merger=_run(in_mergers, torch.Size(in_tower_shape), entering, flows, halved),
            decoder=tuple(decoder[kind] for kind in kinds),
            norm=_run(language.norm, torch.Size(in_decoder_shape), stream, True, halved),
        )


def _kinds_of_blocks(architecture: PreTrainedConfig) -> list[str]:
    """Return the kind of each block of the language model: whether it attends or is a Gated DeltaNet layer."""
    text = architecture.text_config
    given = getattr(text, "layer_types", None) or []
    return given if "linear_attention" in given else ["full_attention"] * text.num_hidden_layers


def _of_one_block(architecture: PreTrainedConfig, kinds: list[str]) -> PreTrainedConfig:
    """Return the config of a model with one vision block, and one block of each kind in the language model."""
    small = copy(architecture)
    small.text_config, small.vision_config = copy(architecture.text_config), copy(architecture.vision_config)
    text, vision = small.text_config, small.vision_config
    text.num_hidden_layers, vision.depth = len(kinds), 1
    if getattr(text, "layer_types", None):
        text.layer_types = kinds
    return small


def _dtype_in_tower(visual: torch.nn.Module, halved: torch.dtype | None) -> torch.dtype:
    """Return the dtype of the states between vision blocks. Learned positions in float32 make the states float32."""
    patches = halved or visual.patch_embed.proj.weight.dtype
    positions = getattr(visual, "pos_embed", None)
    return patches if positions is None else torch.promote_types(patches, positions.weight.dtype)


def _take_place(model: torch.nn.Module, masters: bool) -> None:
    """Replace the tensors on the meta device, which autocast does not support, by fake CPU tensors without memory.

    As in training, each trained parameter has a gradient from the previous pass. With `masters` it is in float32.
    """
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                dtype = torch.float32 if masters and old.requires_grad else old.dtype
                new = torch.nn.Parameter(torch.empty(old.shape, dtype=dtype), old.requires_grad)
                new.grad = torch.empty_like(new) if old.requires_grad else None
                module._parameters[name] = new
        for name, old in module._buffers.items():
            module._buffers[name] = None if old is None else torch.empty(old.shape, dtype=old.dtype)


class Ledger(TorchDispatchMode):
    """A count of the bytes of all tensors that were created since the ledger was opened and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(x.untyped_storage()) for x in torch.utils._pytree.tree_leaves((args, kwargs)) if _is_tensor(x)}
        if func is torch.ops.aten._grouped_mm.default and args[0].dtype != torch.bfloat16:
            # Before torch 2.12 fake tensors support this operation for bfloat16 only.
            made = func(args[0].bfloat16(), args[1].bfloat16(), *args[2:], **(kwargs or {})).to(args[0].dtype)
        else:
            made = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if _is_tensor(tensor) and id(tensor.untyped_storage()) not in given:
                self._add(tensor.untyped_storage())
        self.most = max(self.most, self.alive)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        self.alive += size

        def gone(_: object) -> None:
            self.alive -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, gone)


def _is_tensor(x: object) -> bool:
    return isinstance(x, torch.Tensor)


def _run(
    block: Callable[[torch.Tensor], torch.Tensor],
    shape: torch.Size,
    dtype: torch.dtype,
    flows_in: bool,
    halved: torch.dtype | None,
) -> Block:
    """Run `block` forward and backward and return its memory. `flows_in` says whether its input needs a gradient."""
    anchor = torch.empty((), requires_grad=flows_in)
    with Ledger() as ledger:
        x = _Entering.apply(anchor, shape, dtype)
        entry = ledger.alive
        with autocast("cpu", halved):
            out = block(x)
        if not out.requires_grad:
            return Block(entry, 0, ledger.most)
        edge, gradient = torch.autograd.graph.get_gradient_edge(out), torch.empty_like(out)
        del x, out
        kept = ledger.alive - gradient.untyped_storage().nbytes()
        ledger.most = ledger.alive
        torch.autograd.backward([edge], [gradient])
    return Block(entry, kept, ledger.most)


class _Entering(torch.autograd.Function):
    """An operation that creates the input of a block, which lives only as long as the block's operations keep it."""

    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient.new_zeros(()), None, None


def _attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """Stand in for the attention kernel for pieces of any length, with inputs and outputs of the same sizes."""
    return _Kernel.apply(query.to(value.dtype), key.to(value.dtype), value), None


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
        sums = torch.empty(query.shape[1:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def use_stand_in_for_kernels(model: torch.nn.Module) -> None:
    """Let the Gated DeltaNet layers of `model` take what they take with fla's kernels. Their results are meaningless.
    Without the kernels, layers that are not computed again would keep several times as much."""
    for layer in model.modules():
        if hasattr(layer, "packed_states"):
            layer.packed_states = types.MethodType(_states, layer)


def _states(layer: Any, given: Any, *_: Any) -> torch.Tensor:
    """Stand in for the two kernels of a Gated DeltaNet layer, with what those of fla-core 0.6 keep and return."""
    sizes = (layer.num_v_heads, layer.head_k_dim, layer.head_v_dim)
    return _DeltaRule.apply(given.mixed, given.decay, given.beta, layer.conv1d.weight, 2 * layer.key_dim, sizes)


class _DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mixed: torch.Tensor, decay: torch.Tensor, beta: torch.Tensor, weight: torch.Tensor, keys: int,
        sizes: tuple[int, int, int],
    ) -> torch.Tensor:  # fmt: skip
        heads, _, width = sizes
        convolved = torch.empty_like(mixed)
        normed, values = convolved[:, :keys].contiguous(), convolved[:, keys:].contiguous()
        del convolved
        sums = torch.empty_like(decay)
        inverses = mixed.new_empty(len(mixed), heads, CHUNK)
        states = _states_of_chunks(mixed, sizes)
        out = mixed.new_empty(len(mixed), heads, width)
        del states
        ctx.save_for_backward(mixed, normed, values, decay, sums, beta, inverses, weight)
        ctx.sizes = sizes
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        mixed, _, values, decay, _, beta, _, weight = ctx.saved_tensors
        heads, depth, _ = ctx.sizes
        again = _states_of_chunks(mixed, ctx.sizes), torch.empty_like(values), mixed.new_empty(len(mixed), heads, depth)
        of_states = _states_of_chunks(mixed, ctx.sizes)
        of_queries, of_keys = (mixed.new_empty(len(mixed), heads, depth) for _ in range(2))
        of_values = torch.empty_like(values)
        of_convolved = torch.empty_like(mixed)
        del again, of_states, of_queries, of_keys, of_values
        found = torch.empty_like(mixed), torch.empty_like(decay), torch.empty_like(beta), torch.empty_like(weight)
        del of_convolved
        return *found, None, None


def _states_of_chunks(mixed: torch.Tensor, sizes: tuple[int, int, int]) -> torch.Tensor:
    """Return the states at the start of each chunk, in the precision of the inputs."""
    return mixed.new_empty(-(-len(mixed) // CHUNK), *sizes)


def _layer_norm(module: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """Compute a LayerNorm in float32. Autocast does so on a GPU, but not on a CPU."""
    with torch.autocast("cpu", enabled=False):
        weight, bias = module.weight.float(), module.bias.float()
        return F.layer_norm(x.float(), module.normalized_shape, weight, bias, module.eps)
