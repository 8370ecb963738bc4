"""The forward pass of a packed row.

It embeds the tokens, runs the vision tower once, puts the features of pictures and clips in their places, runs the
language model, and scores the learned tokens. It replaces `forward` on one model instance, so that PEFT's adapters
inside it work unchanged. When called without `samples` (while answers are generated), the original runs. It never waits
for the device to return a number.
"""

import types
from dataclasses import dataclass
from functools import wraps

import torch
from transformers import PreTrainedModel
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer.utils import maybe_gather_lm_head_ctx

from qwenvl_train.batch import Segments
from qwenvl_train.model.linear_attention import use_packed_linear_attention
from qwenvl_train.model.pixels import Pixels
from qwenvl_train.model.tower import merged

CUDA_CHUNK, HOST_CHUNK = 32768, 8192
"""Number of vocabulary entries whose logits exist at a time, for 4,096 tokens. It is smaller on the host, where there
is no kernel and several numbers are kept for each logit."""


@dataclass
class Scores:
    """Scores of the learned tokens, in the order of the packed row. Each tensor is [L]."""

    log_probs: torch.Tensor
    """Log-probability of each token."""
    entropy: torch.Tensor
    """Entropy of the distribution that predicts each token."""
    is_top1: torch.Tensor
    """Whether each token is the most likely one."""
    log_sum_sq_probs: torch.Tensor | None = None
    """Logarithm of the probability that two draws from the distribution agree. None unless requested with `spread`."""


def use_packed_forward(model: PreTrainedModel, image_processor) -> None:
    """Replace the forward pass of `model`, an AutoModelForImageTextToText to which no adapters have been added yet."""
    backbone, original = model.base_model, model.forward

    @wraps(type(model).forward)
    def forward(
        self,
        *args,
        samples: Segments | None = None,
        spread: bool = False,
        next_of: torch.Tensor | None = None,
        with_scores: bool = False,
        **kwargs,
    ):
        if samples is None:
            return original(*args, **kwargs)
        states = backbone(samples=samples, **kwargs)
        logits = None
        if next_of is not None:  # the logits of the tokens that follow these positions
            logits = self.get_output_embeddings()(states[0].index_select(0, next_of))
            if not with_scores:
                return logits
        learned = kwargs["labels"][0].index_select(0, kwargs["learned"])
        scores = _scores(
            states[0].index_select(0, kwargs["predictor_positions"]), self.get_output_embeddings(), learned, spread
        )
        return scores if logits is None else (logits, scores)

    model.forward = types.MethodType(forward, model)
    _use_packed_backbone(backbone, Pixels(image_processor))
    use_packed_linear_attention(backbone.language_model)
    if hasattr(backbone.visual, "deepstack_merger_list"):
        backbone.language_model._deepstack_process = _add_at_places


def _use_packed_backbone(backbone: PreTrainedModel, to_pixels: Pixels) -> None:
    """Replace the forward pass of the backbone, which is still called as a module.

    Otherwise the hooks that adapters and sharded weights register on it would not run.
    """
    original = backbone.forward

    @wraps(type(backbone).forward)
    def forward(self, *args, samples: Segments | None = None, **row):
        if samples is None:
            return original(*args, **row)
        embeddings = self.get_input_embeddings()(row["input_ids"])
        if "features" in row:
            last, *levels = merged(self.visual, row["features"])
        else:
            pixels = to_pixels(row["planes"], row.get("frame_pairs")).to(self.visual.dtype)
            outputs = self.visual(pixels, grid_thw=row["grids"], return_dict=True, **row["vision"])
            last, levels = outputs.pooler_output, list(getattr(outputs, "deepstack_features", []))
        features = last.to(embeddings.dtype)
        places, extra = row["placeholder_positions"], {}
        if len(places):
            embeddings = embeddings.index_copy(1, places, features[None])
            if levels:
                extra = {"visual_pos_masks": places, "deepstack_visual_embeds": levels}
        else:
            # These are the features of a blank picture. The vision weights take part in the pass, without effect.
            embeddings = embeddings + 0 * sum(level.sum() for level in (features, *levels))
        return self.language_model(
            input_ids=None,
            inputs_embeds=embeddings,
            position_ids=row["position_ids"],
            attention_mask=None,
            past_key_values=row.get("cache"),
            use_cache="cache" in row,
            cu_seq_lens_q=samples,
            cu_seq_lens_k=samples,
            max_length_q=samples.longest,
            max_length_k=samples.longest,
            **extra,
        ).last_hidden_state

    backbone.forward = types.MethodType(forward, backbone)


def _scores(states: torch.Tensor, head: torch.nn.Linear, learned: torch.Tensor, spread: bool) -> Scores:
    """Score the `learned` tokens, which `states` predict. Logits exist for one part of the vocabulary at a time."""
    chunk = CUDA_CHUNK if states.is_cuda else HOST_CHUNK
    outputs = ("entropy", "is_top1", "log_sum_sq_probs") if spread else ("entropy", "is_top1")
    with maybe_gather_lm_head_ctx(head.weight):
        log_probs, entropy, log_sum_sq_probs, _, is_top1 = ChunkedLogProbFunction.apply(
            states, head.weight, None, learned, 1.0, chunk, None, 1.0, outputs
        )
    return Scores(log_probs, entropy, is_top1, log_sum_sq_probs)


def _add_at_places(states: torch.Tensor, places: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Add DeepStack features to the hidden states at the given places.

    The original in transformers takes a mask, and would wait for the device to return the number of its places.
    `generate` still passes a mask.
    """
    if places.dtype == torch.bool:
        places = places[0].nonzero()[:, 0]
    return states.index_add(1, places, level[None].to(states.dtype))
