"""The model that answers, with everything that turns a conversation into its input."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from accelerate.utils import send_to_device
from peft import PeftModel
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, set_seed

from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.evaluation.drawing import Drawing
from qwenvl_train.evaluation.media_inputs import media_inputs
from qwenvl_train.families.family import Family
from qwenvl_train.model.attention import set_attention
from qwenvl_train.model.autocast import autocast, keep_casts
from qwenvl_train.model.build import base_model, build_for_inference
from qwenvl_train.model.choosing import Chooser
from qwenvl_train.model.decoding import Prompt, decode
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

    def stream(self, rendered: Rendered, options: dict[str, Any]) -> Generator[Piece, None, None]:
        """Yield the pieces of the answer to a rendered question as they are generated. `options` are arguments of
        `generate`."""
        return text_pieces(lambda **listeners: self._generate(rendered, options | listeners), self.processor.tokenizer)

    @torch.no_grad()
    def _generate(self, rendered: Rendered, options: dict[str, Any]) -> None:
        base = base_model(self.model)
        ids = torch.from_numpy(rendered.layout.input_ids)[None].to(base.device)
        kinds = {base.config.image_token_id: 1, base.config.video_token_id: 2}
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            # transformers 5.23 would continue after a clip at other positions than those of the training.
            "position_ids": torch.from_numpy(rendered.layout.position_ids)[:, None].to(base.device),
            "mm_token_type_ids": sum(kind * (ids == token) for token, kind in kinds.items()),
            **media_inputs(rendered, self.renderer, self.processor, base.device),
        }
        # During generation the cache grows token by token, which packed attention does not support.
        packed = base.config._attn_implementation
        set_attention(base, "sdpa")
        try:
            with self._as_trained(), keep_casts(base):
                self.model.generate(**inputs, **options)
        finally:
            set_attention(base, packed)

    def decode(self, rendered: list[Rendered], max_new_tokens: int) -> list[Piece]:
        """Return the whole greedy answers to several rendered questions, computed together."""
        base = base_model(self.model)
        ends = list(accumulate(one.layout.length for one in rendered))
        prompts = list(map(Prompt, [0, *ends], ends))
        batch = send_to_device(collate(rendered, self.renderer, stops=ends), base.device)
        with self._as_trained():
            decoded = decode(self.model, batch, prompts, max_new_tokens)
        words = self.processor.tokenizer.decode
        return [Piece(words(tokens), len(tokens) + ended, ended) for tokens, ended in decoded]

    @contextmanager
    def _as_trained(self) -> Iterator[None]:
        """Compute with or without the adapter, which is in float32 with what was trained beside it."""
        device = base_model(self.model).device.type
        with autocast(device, None if self.precision == "fp32" else DTYPES[self.precision]):
            if self.adapted:
                yield
            else:
                assert isinstance(self.model, PeftModel)
                with self.model.disable_adapter():
                    yield


def open_model(config: ChatConfig, family: Family) -> ChatModel:
    """Load the model in model.path."""
    precision = choose_precision(config)
    processor = load_processor(config.model, family)
    renderer = make_renderer(config, processor, family)
    set_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_for_inference(config, family, processor, precision, device)
    return ChatModel(config.model.path, model, renderer, processor, precision)


@dataclass(frozen=True)
class Sampling:
    """How answers are generated."""

    max_new_tokens: int
    drawing: Drawing

    def options(self, seed: int) -> dict[str, Any]:
        """Return the arguments of `generate` for one answer. Those that a published generation config sets are
        replaced."""
        chosen = LogitsProcessorList([Chosen(self.drawing.chooser([seed], self.max_new_tokens))])
        plain = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
        return {"max_new_tokens": self.max_new_tokens, **plain, "logits_processor": chosen}


class Chosen(LogitsProcessor):
    """Leaves `generate`, which takes the most likely token, no other than the one that is chosen."""

    def __init__(self, choose: Chooser):
        self._choose, self._step = choose, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens = self._choose(scores, range(len(scores)), self._step)
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


def sampling_of(chat: ChatSection, seed: int = 0) -> Sampling:
    """Return how answers are generated. The seeds of the answers to rows follow from `seed`."""
    return Sampling(chat.max_new_tokens, Drawing(1, chat.temperature, chat.top_p, chat.top_k, seed))
