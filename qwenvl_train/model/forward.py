"""The packed forward pass: embed, look once, put pictures and clips in their places, decode.

It replaces `forward` on one model instance, below the language-model head, so that TRL's losses above it and
PEFT's adapters inside it work unchanged. Called without cu_seqlens (by `generate`) the original runs.
"""

import types
from functools import wraps

import torch
from transformers import PreTrainedModel


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


def use_packed_forward(model: PreTrainedModel, image_processor) -> None:
    """`model` is the bare AutoModelForImageTextToText, before adapters."""
    backbone = model.base_model
    original = backbone.forward
    merge, patch = image_processor.merge_size, image_processor.patch_size
    to_pixels = Pixels(image_processor)

    @wraps(type(backbone).forward)
    def forward(self, *args, cu_seqlens=None, max_seqlen=None, planes=None, pairs=None, grids=None, **kwargs):
        if cu_seqlens is None:
            return original(*args, **kwargs)
        embeddings = self.get_input_embeddings()(kwargs["input_ids"])
        real = planes is not None
        if not real:
            # Every process runs the tower once in every pass, or sharded runs would wait for each other forever.
            planes = torch.zeros(merge**2, 3 * patch**2, dtype=torch.uint8, device=embeddings.device)
            grids = torch.tensor([[1, merge, merge]], device=embeddings.device)
        seen = self.visual(to_pixels(planes, pairs).to(self.visual.dtype), grid_thw=grids, return_dict=True)
        features = seen.pooler_output.to(embeddings.dtype)
        deepstack = getattr(seen, "deepstack_features", None)
        ids = kwargs["input_ids"]
        places = ((ids == self.config.image_token_id) | (ids == self.config.video_token_id)) & real
        if real:
            embeddings = embeddings.masked_scatter(places[..., None].expand_as(embeddings), features)
        else:
            embeddings = embeddings + (0 * features).sum()
            if deepstack is not None:
                embeddings = embeddings + sum((0 * level).sum() for level in deepstack)
        extra = {}
        if deepstack is not None and real:
            extra = {"visual_pos_masks": places, "deepstack_visual_embeds": deepstack}
        return self.language_model(
            input_ids=None,
            inputs_embeds=embeddings,
            position_ids=kwargs["position_ids"],
            attention_mask=None,
            use_cache=False,
            cu_seq_lens_q=cu_seqlens,
            cu_seq_lens_k=cu_seqlens,
            max_length_q=max_seqlen,
            max_length_k=max_seqlen,
            **extra,
        )

    backbone.forward = types.MethodType(forward, backbone)
