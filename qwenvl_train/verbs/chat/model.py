"""The model that answers, with everything that turns a conversation into its input."""

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, set_seed

from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.evaluation.generation import media_inputs
from qwenvl_train.families.family import Family
from qwenvl_train.model.attention import set_attention
from qwenvl_train.model.autocast import autocast, keep_casts
from qwenvl_train.model.build import base_model, build_for_inference
from qwenvl_train.model.load import DTYPES
from qwenvl_train.model.processor import load_processor
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.training.distributed.processes import choose_precision
from qwenvl_train.verbs.chat.pieces import Piece, text_pieces
from qwenvl_train.verbs.chat.settings import ChatConfig, ChatSection


@dataclass(frozen=True)
class ChatModel:
    name: str
    """The folder or hub id of the model."""
    model: PreTrainedModel | PeftModel
    renderer: Renderer
    processor: Any
    precision: str
    adapted: bool = True
    """Whether the adapter of the model is used, if it has one."""

    @property
    def family(self) -> Family:
        return self.renderer.family

    @property
    def unadapted(self) -> "ChatModel":
        """The base model below the adapter. It shares all weights with this one."""
        assert isinstance(self.model, PeftModel)
        return replace(self, name=f"{self.name} without its adapter", adapted=False)

    def stream(self, rendered: Rendered, sampling: dict[str, Any]) -> Generator[Piece, None, None]:
        """Yield the pieces of the answer to a rendered question as they are generated."""
        return text_pieces(lambda **listeners: self._generate(rendered, sampling | listeners), self.processor.tokenizer)

    @torch.no_grad()
    def _generate(self, rendered: Rendered, options: dict[str, Any]) -> None:
        base = base_model(self.model)
        ids = torch.from_numpy(rendered.layout.input_ids)[None].to(base.device)
        kinds = {base.config.image_token_id: 1, base.config.video_token_id: 2}
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": sum(kind * (ids == token) for token, kind in kinds.items()),
            **media_inputs(rendered, self.renderer, self.processor, base.device),
        }
        # During generation the cache grows token by token, which packed attention does not support.
        set_attention(base, "sdpa")
        # Adapters and what was trained beside them are in float32, as during training.
        dtype = None if self.precision == "fp32" else DTYPES[self.precision]
        with self._adapters(), autocast(base.device.type, dtype), keep_casts(base):
            self.model.generate(**inputs, **options)

    def _adapters(self) -> AbstractContextManager[None]:
        if self.adapted:
            return nullcontext()
        assert isinstance(self.model, PeftModel)
        return self.model.disable_adapter()


def open_model(config: ChatConfig, family: Family) -> ChatModel:
    """Load the model in model.path. Settings that make training fast are not used."""
    train = config.train.model_copy(update={"compile": False, "liger": False, "attention": "auto"})
    config = config.model_copy(update={"train": train})
    precision = choose_precision(config)
    processor = load_processor(config.model, family)
    renderer = make_renderer(config, processor, family)
    set_seed(config.seed)
    model = build_for_inference(config, family, processor, precision)
    if config.model.quantize == "none":
        model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return ChatModel(config.model.path, model, renderer, processor, precision)


def sampling_of(chat: ChatSection) -> dict[str, Any]:
    """Return the settings of `generate`. Those that a published generation config sets are replaced."""
    common = {"max_new_tokens": chat.max_new_tokens, "num_beams": 1, "repetition_penalty": 1.0}
    if chat.temperature == 0:
        return common | {"do_sample": False}
    return common | {"do_sample": True, "temperature": chat.temperature, "top_p": chat.top_p, "top_k": chat.top_k}
