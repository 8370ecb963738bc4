"""Decoding of several prompts at once.

The prompts are beginnings of the samples of one packed row. The row goes through the model once and without padding, so
that all prompts of a conversation share one pass, and each picture is encoded once. The keys and values of each prompt
are then arranged as a batch, padded on the left, with the states of Gated DeltaNet layers at its end, and each further
pass adds a token to every answer. An answer that has ended leaves the batch. A prompt may be given several times: its
answers share the pass over the row, and so its pictures.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionLayer

from qwenvl_train.batch import Batch
from qwenvl_train.model.attention import set_attention
from qwenvl_train.model.autocast import keep_casts
from qwenvl_train.model.build import base_model
from qwenvl_train.model.choosing import Chooser, most_likely

_ROOM = 64
"""Number of tokens that are added to the keys and values before they are copied to larger tensors."""


class Prompt(NamedTuple):
    """The tokens of a packed row that an answer continues: from the first token of a sample up to, and without, the
    token at `end`."""

    start: int
    end: int


class Decoded(NamedTuple):
    tokens: list[int]
    """The tokens of the answer, without the token that ends it."""
    ended: bool
    """Whether the model has ended the answer. Otherwise it was cut at the limit."""


def this_process(unfinished: bool) -> bool:
    return unfinished


@torch.no_grad()
def decode(
    model: PreTrainedModel | PeftModel,
    batch: Batch,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    choose: Chooser = most_likely,
    any_process: Callable[[bool], bool] = this_process,
) -> list[Decoded]:
    """Return a continuation of each prompt.

    Args:
        model: A model with the packed forward pass, in evaluation mode.
        batch: The packed row, on the device of the model. If the model has Gated DeltaNet layers, the ends of the
            prompts must be among the `stops` that `collate` was given.
        choose: Chooses the tokens of the answers, by default the most likely ones.
        any_process: Says whether any process has unfinished answers, given whether this one has. With sharded weights,
            all processes must go on until the last one has finished.
    """
    base = base_model(model)
    answers = _Answers(len(prompts), max_new_tokens, _end_tokens(base))
    live = list(range(len(prompts)))
    with keep_casts(base):
        logits, decoder = _read_prompts(base, batch, prompts)
        packed = base.config._attn_implementation
        set_attention(base, "sdpa")  # packed attention has no support for a cache that grows
        try:
            for step in count():
                tokens = choose(logits, live, step)
                keep = answers.add(live, tokens.tolist())
                if not any_process(bool(keep)):
                    break
                keep = keep or [0]  # it goes on for the other processes alone
                if len(keep) < len(live):
                    tokens = decoder.select(tokens, keep)
                    live = [live[place] for place in keep]
                logits = decoder.next(tokens)
        finally:
            set_attention(base, packed)
    return answers.decoded()


class _Answers:
    """The answers as far as they are decoded."""

    def __init__(self, prompts: int, most: int, end_tokens: frozenset[int]):
        """`most` is the largest number of tokens of an answer."""
        self._most, self._end_tokens = most, end_tokens
        self._tokens: list[list[int]] = [[] for _ in range(prompts)]
        self._ended = [False] * prompts

    def add(self, live: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Add a token to each of the live answers. Return the places of those that go on."""
        going_on = []
        for place, (number, token) in enumerate(zip(live, tokens, strict=True)):
            answer = self._tokens[number]
            if token in self._end_tokens:
                self._ended[number] = True
            elif not self._ended[number] and len(answer) < self._most:
                answer.append(token)
                if len(answer) < self._most:
                    going_on.append(place)
        return going_on

    def decoded(self) -> list[Decoded]:
        return [Decoded(*answer) for answer in zip(self._tokens, self._ended, strict=True)]


class _Decoder:
    """The state of the answers that have not ended: keys and values, the attention mask, and positions."""

    def __init__(self, model: PreTrainedModel, cache: Cache, mask: torch.Tensor, positions: torch.Tensor):
        self._model, self._cache, self._mask = model, cache, mask
        self._positions = positions
        """[batch]: the M-RoPE position of the next token, which is the same in time, height and width."""

    def select(self, tokens: torch.Tensor, keep: list[int]) -> torch.Tensor:
        """Keep only some of the answers, and return their tokens."""
        kept = torch.tensor(keep, device=tokens.device)
        self._cache.batch_select_indices(kept)
        self._mask, self._positions = self._mask[kept], self._positions[kept]
        return tokens[kept]

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append the tokens to the answers, and return the logits of the next ones, [batch, vocabulary]."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        logits = self._model(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=self._positions.expand(3, -1)[..., None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        self._positions = self._positions + 1
        return logits[:, -1]


def _read_prompts(model: PreTrainedModel, batch: Batch, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, _Decoder]:
    """Run the packed row through the model. Return the logits of the first token of each answer, [answers,
    vocabulary], and the decoder of the others."""
    device = batch["input_ids"].device
    ends = torch.tensor([prompt.end for prompt in prompts], device=device)
    cache = Cache(layers=[_RecurrentLayer() if recurrent else DynamicLayer() for recurrent in _recurrent_layers(model)])
    logits = model(**batch, cache=cache, next_of=ends - 1)
    longest = max(end - start for start, end in prompts)
    places = ends[:, None] - torch.arange(longest, 0, -1, device=device)
    mask = places >= torch.tensor([prompt.start for prompt in prompts], device=device)[:, None]
    places = places.clamp(min=0)
    layers: list[_GrowingLayer | _RecurrentLayer] = []
    stretches = _stretches_before(batch, prompts)
    for layer in cache.layers:
        if isinstance(layer, _RecurrentLayer):
            layer.batch_select_indices(torch.tensor(stretches, device=device))
            layers.append(layer)
        else:
            layers.append(_GrowingLayer(layer.keys, layer.values, places))
            layer.keys = layer.values = None  # frees the memory before the next layer is arranged
    positions = batch["position_ids"][1, 0].index_select(0, ends - 1) + 1
    return logits, _Decoder(model, Cache(layers=layers), mask.long(), positions)


def _recurrent_layers(model: PreTrainedModel) -> list[bool]:
    """Return for each layer of the language model whether it is a Gated DeltaNet layer."""
    return [hasattr(block, "linear_attn") for block in model.base_model.language_model.layers]


def _stretches_before(batch: Batch, prompts: Sequence[Prompt]) -> list[int]:
    """Return the number of the stretch at whose end each prompt ends."""
    recurrence = batch["samples"].recurrence
    return [] if recurrence is None else [recurrence.ends.index(prompt.end) for prompt in prompts]


class _RecurrentLayer(LinearAttentionLayer):
    """The states of one Gated DeltaNet layer: at the end of each stretch of a packed row, and then of each answer."""

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.reorder_cache(indices)


class _GrowingLayer(DynamicLayer):
    """The keys and values of one layer of the model, in tensors with room for further tokens. The layer of transformers
    copies all of them for each token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, places: torch.Tensor):
        """Take the states of a packed row, [1, heads, T, d], at the places of each answer, [batch, tokens]."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._length = places.shape[1]
        self._states = [_with_room(states[0][:, places].transpose(0, 1)) for states in (keys, values)]
        self._show()

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        start, self._length = self._length, self._length + key_states.shape[-2]
        if self._length > self._states[0].shape[-2]:
            self._states = [_with_room(states) for states in self._states]
        for states, new in zip(self._states, (key_states, value_states), strict=True):
            states[:, :, start : self._length] = new
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._states = [states[indices] for states in self._states]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (states[:, :, : self._length] for states in self._states)


def _with_room(states: torch.Tensor) -> torch.Tensor:
    """Return a copy of [batch, heads, tokens, d] with room for further tokens."""
    batch, heads, tokens, width = states.shape
    larger = states.new_empty(batch, heads, tokens + _ROOM, width)
    larger[:, :, :tokens] = states
    return larger


def _end_tokens(model: PreTrainedModel) -> frozenset[int]:
    tokens = getattr(model.generation_config, "eos_token_id", None)
    return frozenset(tokens if isinstance(tokens, list) else [tokens])
