"""The packed forward pass: embed, look once, put pictures and clips in their places, decode, score what is learned.

It replaces `forward` on one model instance, so that PEFT's adapters inside it work unchanged. Called without
`samples` (by `generate`) the original runs. Nothing in it waits for the device to tell a number.
"""

import types
from dataclasses import dataclass
from functools import wraps

import torch
from transformers import PreTrainedModel
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer.utils import maybe_gather_lm_head_ctx

from qwenvl_train.batch import Segments
from qwenvl_train.model.tower import merged

CUDA_CHUNK, HOST_CHUNK = 32768, 8192
"""Logits that exist at a time, for 4,096 tokens; without a kernel several numbers are kept for each."""


class Pixels:
    """From uint8 planes to what the published processor would have given, in float32."""

    def __init__(self, image_processor):
        scale = 1 / image_processor.rescale_factor
        self.mean = torch.tensor(image_processor.image_mean)[:, None, None] * scale
        self.std = torch.tensor(image_processor.image_std)[:, None, None] * scale
        self.frames = image_processor.temporal_patch_size

    def __call__(self, planes: torch.Tensor, pairs: torch.Tensor | None = None) -> torch.Tensor:
        """[N, p*p*C] uint8 to [P, C*t*p*p]; without `pairs`, each plane is the same in each of the t frames."""
        if self.mean.device != planes.device:
            self.mean, self.std = self.mean.to(planes.device), self.std.to(planes.device)
        # Put in order while they are bytes, a quarter of the floats.
        x = planes.unflatten(1, (-1, 1, len(self.mean))).permute(0, 3, 2, 1).contiguous().float()
        x = (x - self.mean) / self.std
        if pairs is None:
            return x.expand(-1, -1, self.frames, -1).flatten(1)
        return torch.cat([x.index_select(0, frame) for frame in pairs.unbind(1)], dim=2).flatten(1)


@dataclass
class Scores:
    """Of the tokens that are learned, in the order of the row; each [L]."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    is_top1: torch.Tensor
    """Whether the token is the likeliest one."""
    log_sum_sq_probs: torch.Tensor | None = None
    """How likely two draws agree, as a logarithm; where asked for."""


def use_packed_forward(model: PreTrainedModel, image_processor) -> None:
    """`model` is the bare AutoModelForImageTextToText, before adapters."""
    backbone, original = model.base_model, model.forward

    @wraps(type(model).forward)
    def forward(self, *args, samples: Segments | None = None, spread: bool = False, **kwargs):
        if samples is None:
            return original(*args, **kwargs)
        states = backbone(samples=samples, **kwargs)
        learned = kwargs["labels"][0].index_select(0, kwargs["learned"])
        return _scores(
            states[0].index_select(0, kwargs["predictor_positions"]), self.get_output_embeddings(), learned, spread
        )

    model.forward = types.MethodType(forward, model)
    _use_packed_backbone(backbone, Pixels(image_processor))
    if hasattr(backbone.visual, "deepstack_merger_list"):
        backbone.language_model._deepstack_process = _add_at_places


def _use_packed_backbone(backbone: PreTrainedModel, to_pixels: Pixels) -> None:
    """As a module, or what hooks on it (adapters, sharded weights) do would be missed."""
    original = backbone.forward

    @wraps(type(backbone).forward)
    def forward(self, *args, samples: Segments | None = None, **row):
        if samples is None:
            return original(*args, **row)
        embeddings = self.get_input_embeddings()(row["input_ids"])
        if "features" in row:
            last, *levels = merged(self.visual, row["features"])
        else:
            pixels = to_pixels(row["planes"], row.get("pairs")).to(self.visual.dtype)
            seen = self.visual(pixels, grid_thw=row["grids"], return_dict=True, **row["vision"])
            last, levels = seen.pooler_output, list(getattr(seen, "deepstack_features", []))
        features = last.to(embeddings.dtype)
        places, extra = row["places"], {}
        if len(places):
            embeddings = embeddings.index_copy(1, places, features[None])
            if levels:
                extra = {"visual_pos_masks": places, "deepstack_visual_embeds": levels}
        else:
            # The blank picture: its weights take part in the pass, and nothing comes of it.
            embeddings = embeddings + 0 * sum(level.sum() for level in (features, *levels))
        return self.language_model(
            input_ids=None,
            inputs_embeds=embeddings,
            position_ids=row["position_ids"],
            attention_mask=None,
            use_cache=False,
            cu_seq_lens_q=samples,
            cu_seq_lens_k=samples,
            max_length_q=samples.longest,
            max_length_k=samples.longest,
            **extra,
        ).last_hidden_state

    backbone.forward = types.MethodType(forward, backbone)


def _scores(states: torch.Tensor, head: torch.nn.Linear, learned: torch.Tensor, spread: bool) -> Scores:
    """`states` tell the `learned` tokens; their logits exist a part of the vocabulary at a time."""
    chunk = CUDA_CHUNK if states.is_cuda else HOST_CHUNK
    outputs = ("entropy", "is_top1", "log_sum_sq_probs") if spread else ("entropy", "is_top1")
    with maybe_gather_lm_head_ctx(head.weight):
        log_probs, entropy, log_sum_sq_probs, _, is_top1 = ChunkedLogProbFunction.apply(
            states, head.weight, None, learned, 1.0, chunk, None, 1.0, outputs
        )
    return Scores(log_probs, entropy, is_top1, log_sum_sq_probs)


def _add_at_places(states: torch.Tensor, places: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """transformers' own takes a mask, whose size the device would have to tell; `generate` still gives one."""
    if places.dtype == torch.bool:
        places = places[0].nonzero()[:, 0]
    return states.index_add(1, places, level[None].to(states.dtype))
