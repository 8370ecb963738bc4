"""Count the floating-point operations of a packed row by component, for the MFU of a run and the estimate of a plan.

Matrix products and convolutions are counted, with two operations for each multiply-add. All other operations are few
in comparison. In training, the count covers what the gradients need and the forward pass of a reference model, and
nothing more:

- A product with weights counts once, once more if its input needs a gradient, and once more if its weights are
  trained. A trained layer therefore counts three times, a frozen one that gradients flow through twice, and any other
  once. A trained layer with nothing trained below it, such as the patch embedding, counts twice. The usual rule
  (trained layers three times, frozen ones once) would leave out the backward pass through a frozen language model.
- Attention has no weights. It counts three times if gradients flow through it, and once otherwise. It is counted for
  each pair of tokens that may attend to each other: half the square of a sample's length in the language model, and the
  square of the number of patches in a frame or window in the vision tower.
- The recurrence of a Gated DeltaNet layer has no weights either. It is counted token by token, as three products with
  the state of each value head: the key reads from it, writes to it, and the query reads from it. What kernels compute
  in addition, to take many tokens at a time, is not counted. Its convolution counts like a product with weights.
- The two small products of an adapter are counted in addition to the frozen product. For experts, only those that run
  are counted. PEFT multiplies out the adapters of all experts, but the extra operations do no useful work.
- Logits are counted for supervised tokens, because the loss computes no others.
- Operations that the backward pass repeats, logits included, count once. The blank picture of a packed row without
  media counts nothing, and neither does the backward pass to it through a frozen language model.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from transformers import PreTrainedConfig

from qwenvl_train.batch import Contents
from qwenvl_train.config.schema import Component
from qwenvl_train.model.components import Mode
from qwenvl_train.model.shapes import head_width, tower_width

RECURRENT = ("qwen3_5", "qwen3_5_moe")

Unit = Literal["token", "pair", "supervised", "patch", "frame_pair", "window_pair", "visual"]
"""What operations are counted for. A pair is a token and one that it attends to. "visual" is a visual token."""

Rates = dict[Unit, int]
"""Floating-point operations for each unit."""


class Flops(NamedTuple):
    """Floating-point operations of each component."""

    vision: int
    mlp: int
    llm: int

    @property
    def total(self) -> int:
        return sum(self)


@dataclass(frozen=True)
class Linear:
    """A matrix product with weights."""

    unit: Unit
    inputs: int
    outputs: int
    times: int = 1
    """Number of such products for each unit: the active experts of a token, or the mergers of a visual token."""
    adapts: bool = True
    """Whether LoRA can add an adapter."""

    def forward(self) -> int:
        return 2 * self.times * self.inputs * self.outputs

    def training(self, mode: Mode, rank: int, flows_in: bool) -> int:
        once = self.forward()
        match mode:
            case "full":
                return once * (2 + flows_in)
            case "lora" if self.adapts:
                down, up = 2 * self.times * self.inputs * rank, 2 * self.times * rank * self.outputs
                return once * (1 + flows_in) + down * (2 + flows_in) + up * 3
            case _:
                return once * (1 + flows_in)

    def trains(self, mode: Mode) -> bool:
        return mode == "full" or (mode == "lora" and self.adapts)


@dataclass(frozen=True)
class Products:
    """Matrix products without weights. In attention they are two: queries with keys, and attention weights with values.
    In a recurrence they are three, each with the state."""

    unit: Unit
    multiply_adds: int
    """Number of multiply-adds for each unit, in all heads and products together."""

    def forward(self) -> int:
        return 2 * self.multiply_adds

    def training(self, mode: Mode, rank: int, flows_in: bool) -> int:
        return self.forward() * (3 if flows_in else 1)

    def trains(self, mode: Mode) -> bool:
        return False


Stage = tuple[Linear | Products, ...]
"""Products that read the same activations. The stages of a component follow each other."""


@dataclass(frozen=True)
class FlopCount:
    """A counter of the operations of packed rows.

    It is made once for a model and its trained components. Counting a packed row is then cheap.
    """

    merge: int
    """Side in patches of the square that becomes one visual token."""
    window: int | None
    """Side of an attention window in patches. None if the vision tower has no windows."""
    forward_rates: Mapping[Component, Rates]
    training_rates: Mapping[Component, Rates]
    """Rates of training for a packed row with media."""
    wordy_rates: Mapping[Component, Rates]
    """Rates of training for a packed row without media, from which nothing below the language model learns."""

    @classmethod
    def of(
        cls,
        config: PreTrainedConfig,
        modes: Mapping[Component, Mode],
        rank: int,
        looks: bool = True,
        compares: bool = False,
    ) -> "FlopCount":
        """Return the count for a model with the config `config`, and adapters of the rank `rank` if it has any.

        `looks` is False if packed rows bring stored features, so that the vision tower does not run. With `compares`,
        the forward pass of a reference model is counted, too; a frozen tower runs once for both models.
        """
        tower, merger, decoder = list(_tower(config)) if looks else [], list(_merger(config)), list(_decoder(config))
        # A fully trained component may have a trained norm or embedding below its first product, which then needs a
        # gradient of its input. Nothing lies below the patch embedding.
        vision, flows = _training(tower, modes["vision"], rank, False)
        mlp, flows = _training(merger, modes["mlp"], rank, flows or modes["mlp"] == "full")
        llm, _ = _training(decoder, modes["llm"], rank, flows or modes["llm"] == "full")
        wordy, _ = _training(decoder, modes["llm"], rank, modes["llm"] == "full")
        forward: dict[Component, Rates] = {
            "vision": _forward(tower), "mlp": _forward(merger), "llm": _forward(decoder)
        }  # fmt: skip
        if compares:
            vision = vision if modes["vision"] == "frozen" else _plus(vision, forward["vision"])
            mlp, llm, wordy = _plus(mlp, forward["mlp"]), _plus(llm, forward["llm"]), _plus(wordy, forward["llm"])
        return cls(
            merge=config.vision_config.spatial_merge_size,
            window=_window(config),
            forward_rates=forward,
            training_rates={"vision": vision, "mlp": mlp, "llm": llm},
            wordy_rates={"vision": {}, "mlp": {}, "llm": wordy},
        )

    def forward(self, contents: Contents) -> Flops:
        return _times(self.forward_rates, self._amounts(contents))

    def training(self, contents: Contents) -> Flops:
        """Return the operations of the forward and backward pass, and of the reference model's forward pass if any."""
        rates = self.training_rates if contents.grids else self.wordy_rates
        return _times(rates, self._amounts(contents))

    def _amounts(self, contents: Contents) -> Mapping[Unit, int]:
        lengths, contexts = np.array([*chain(*contents.pieces)], dtype=np.int64).reshape(-1, 2).T
        frames, high, wide = np.array(contents.grids, dtype=np.int64).reshape(-1, 3).T
        patches = int((frames * high * wide).sum())
        windows = 0
        if self.window is not None:
            # The pairs in a window are the pairs along one side times the pairs along the other.
            windows = int((frames * _squares(high, self.window) * _squares(wide, self.window)).sum())
        return {
            "token": int(lengths.sum()),
            "pair": int((lengths * (lengths + 1) // 2 + lengths * contexts).sum()),
            "supervised": contents.supervised,
            "patch": patches,
            "frame_pair": int((frames * (high * wide) ** 2).sum()),
            "window_pair": windows,
            "visual": patches // self.merge**2,
        }


def _squares(side: np.ndarray, window: int) -> np.ndarray:
    """Return the sum of the squared lengths into which windows cut a side. The last length may be shorter."""
    whole, rest = np.divmod(side, window)
    return whole * window**2 + rest**2


def _times(rates: Mapping[Component, Rates], amounts: Mapping[Unit, int]) -> Flops:
    return Flops(**{name: sum(rate * amounts[unit] for unit, rate in of.items()) for name, of in rates.items()})


def _forward(stages: Iterable[Stage]) -> Rates:
    return _summed((product.unit, product.forward()) for product in chain.from_iterable(stages))


def _training(stages: Iterable[Stage], mode: Mode, rank: int, flows: bool) -> tuple[Rates, bool]:
    """Return the rates of training, and whether the output needs a gradient. `flows` says whether the input does."""
    costs: list[tuple[Unit, int]] = []
    for stage in stages:
        costs += [(product.unit, product.training(mode, rank, flows)) for product in stage]
        flows = flows or any(product.trains(mode) for product in stage)
    return _summed(costs), flows


def _summed(costs: Iterable[tuple[Unit, int]]) -> Rates:
    rates: Rates = {}
    for unit, cost in costs:
        rates[unit] = rates.get(unit, 0) + cost
    return rates


def _plus(one: Rates, other: Rates) -> Rates:
    return _summed(chain(one.items(), other.items()))


def _window(config: PreTrainedConfig) -> int | None:
    vision = config.vision_config
    if config.model_type != "qwen2_5_vl":
        return None
    # Windows hold whole visual tokens.
    return vision.window_size // vision.spatial_merge_size // vision.patch_size * vision.spatial_merge_size


def _tower(config: PreTrainedConfig) -> Iterator[Stage]:
    vision = config.vision_config
    width = tower_width(config)
    inner = width * vision.mlp_ratio if config.model_type == "qwen2_vl" else vision.intermediate_size
    gates = 2 if config.model_type == "qwen2_5_vl" else 1
    pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    yield (Linear("patch", pixels, width, adapts=False),)
    for block in range(vision.depth):
        whole_frame = config.model_type != "qwen2_5_vl" or block in vision.fullatt_block_indexes
        yield (Linear("patch", width, 3 * width),)
        yield (Products("frame_pair" if whole_frame else "window_pair", 2 * width),)
        yield (Linear("patch", width, width),)
        yield (Linear("patch", width, inner),) * gates
        yield (Linear("patch", inner, width),)


def _merger(config: PreTrainedConfig) -> Iterator[Stage]:
    """Yield the stages of all mergers at once. DeepStack mergers are as large as the final one."""
    vision = config.vision_config
    count = 1 + len(getattr(vision, "deepstack_visual_indexes", ()))
    merged = tower_width(config) * vision.spatial_merge_size**2
    yield (Linear("visual", merged, merged, times=count),)
    yield (Linear("visual", merged, config.text_config.hidden_size, times=count),)


def _decoder(config: PreTrainedConfig) -> Iterator[Stage]:
    text = config.text_config
    for layer in range(text.num_hidden_layers):
        recurrent = config.model_type in RECURRENT and text.layer_types[layer] == "linear_attention"
        yield from _gated_delta_net(text) if recurrent else _attention(config)
        yield from _sparse(text) if _is_sparse(config, layer) else _dense(text.hidden_size, text.intermediate_size)
    yield (Linear("supervised", text.hidden_size, text.vocab_size, adapts=False),)


def _attention(config: PreTrainedConfig) -> Iterator[Stage]:
    text = config.text_config
    width, head = text.hidden_size, head_width(config)
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    gated = 2 if config.model_type in RECURRENT else 1  # the projection of queries also makes the output's gate
    yield Linear("token", width, gated * queries), Linear("token", width, keys), Linear("token", width, keys)
    yield (Products("pair", 2 * queries),)
    yield (Linear("token", queries, width),)


def _gated_delta_net(text: PreTrainedConfig) -> Iterator[Stage]:
    width, heads = text.hidden_size, text.linear_num_value_heads
    keys, values = text.linear_num_key_heads * text.linear_key_head_dim, heads * text.linear_value_head_dim
    mixed = 2 * keys + values
    decay_and_beta = (Linear("token", width, heads),) * 2
    yield Linear("token", width, mixed), Linear("token", width, values), *decay_and_beta
    yield (Linear("token", text.linear_conv_kernel_dim, mixed, adapts=False),)
    yield (Products("token", 3 * heads * text.linear_key_head_dim * text.linear_value_head_dim),)
    yield (Linear("token", values, width),)


def _dense(width: int, inner: int) -> Iterator[Stage]:
    yield (Linear("token", width, inner),) * 2
    yield (Linear("token", inner, width),)


def _sparse(text: PreTrainedConfig) -> Iterator[Stage]:
    width, inner, active = text.hidden_size, text.moe_intermediate_size, text.num_experts_per_tok
    router = Linear("token", width, text.num_experts, adapts=False)
    # The gate and up projections are one parameter, and so have one adapter.
    entering: Stage = router, Linear("token", width, 2 * inner, times=active)
    leaving: Stage = (Linear("token", inner, width, times=active),)
    if shared := getattr(text, "shared_expert_intermediate_size", 0):
        entering += (Linear("token", width, 1), *(Linear("token", width, shared),) * 2)
        leaving += (Linear("token", shared, width),)
    yield entering
    yield leaving


def _is_sparse(config: PreTrainedConfig, layer: int) -> bool:
    text = config.text_config
    match config.model_type:
        case "qwen3_vl_moe":
            return layer not in text.mlp_only_layers and (layer + 1) % text.decoder_sparse_step == 0
        case "qwen3_5_moe":
            return True
    return False
