"""Judgements by a Qwen-VL model: one forward pass for all questions about a row, without generation.

A question is answered by the probabilities of its options at the first token of the answer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from peft import PeftModel
from transformers import PreTrainedModel

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.curation.judging.engine import Answered, Asked
from qwenvl_train.curation.judging.prompted import PromptedRow, prompted_row
from qwenvl_train.curation.judging.prompts import Choice, Figures, Reward, normalized
from qwenvl_train.data.ahead import in_order
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.evaluation.batches import in_halves
from qwenvl_train.families.family import Family
from qwenvl_train.model.autocast import autocast, autocast_to
from qwenvl_train.model.build import base_model, build_for_inference
from qwenvl_train.model.forward import Scores
from qwenvl_train.model.load import identity_of


@dataclass(frozen=True)
class CausalModel:
    """A model that is loaded when it is first needed."""

    identity: str
    """A string that changes when the model or the precision of its passes does."""
    renderer: Renderer
    tokenizer: Any
    load: Callable[[], PreTrainedModel | PeftModel]
    """Returns the model with the packed forward pass, in evaluation mode."""
    autocast_to: torch.dtype | None = None

    @cached_property
    def model(self) -> PreTrainedModel | PeftModel:
        return self.load()


def causal_model(
    config: RunConfig, family: Family, processor: Any, renderer: Renderer, precision: str, device: torch.device
) -> CausalModel:
    """Return the model in model.path. Its weights are loaded only when it is needed."""
    return CausalModel(
        f"{identity_of(config.model)} {config.model.quantize} {precision}",
        renderer,
        processor.tokenizer,
        lambda: build_for_inference(config, family, processor, precision, device),
        autocast_to(config, precision),
    )


@dataclass(frozen=True)
class _Ready:
    """A row that is ready for the model, or the reason why it is not."""

    asked: Asked
    row: PromptedRow | None
    problem: str | None = None


class CausalEngine:
    all_at_once = True
    proven = False

    def __init__(self, model: CausalModel, batch_tokens: int, workers: int):
        """
        Args:
            batch_tokens: The number of tokens of a forward pass, unless a single row has more.
            workers: The number of threads that read rows ahead.
        """
        self._loaded, self._batch_tokens, self._workers = model, batch_tokens, max(1, workers)
        self.identity = f"{model.identity} {model.renderer.fingerprint()}"

    def answers(self, rows: Sequence[Asked]) -> Iterator[list[Answered]]:
        with closing(in_order(self._prepared, rows, self._workers)) as prepared:
            for group in self._groups(prepared):
                yield [Answered(one.asked.number, (), one.problem) for one in group if one.row is None]
                if ready := [one for one in group if one.row is not None]:
                    yield self._judged(ready)

    def _prepared(self, asked: Asked) -> _Ready:
        assert not any(isinstance(prompt, Reward) for prompt in asked.prompts)
        try:
            row = prompted_row(asked.sample, asked.prompts, self._loaded.renderer, self._loaded.tokenizer)
        except UserError as error:
            return _Ready(asked, None, message_of(error))
        return _Ready(asked, row)

    def _groups(self, rows: Iterable[_Ready]) -> Iterator[list[_Ready]]:
        """Yield the rows in groups of up to `batch_tokens` tokens."""
        group: list[_Ready] = []
        tokens = 0
        for one in rows:
            more = one.row.tokens if one.row else 0
            if group and tokens + more > self._batch_tokens:
                yield group
                group, tokens = [], 0
            group.append(one)
            tokens += more
        if group:
            yield group

    def _judged(self, ready: Sequence[_Ready]) -> list[Answered]:
        try:
            return in_halves(ready, self._figures, lambda one: one.asked.sample.where, "lower model.max_pixels")
        except UserError as error:
            if len(ready) == 1:
                return [Answered(ready[0].asked.number, (), message_of(error))]
        return [answer for one in ready for answer in self._judged([one])]

    @torch.no_grad()
    def _figures(self, ready: Sequence[_Ready]) -> list[Answered]:
        """Compute the figures of some rows in one forward pass."""
        rows = [one.row for one in ready if one.row is not None]
        model, renderer = self._loaded.model, self._loaded.renderer
        device = base_model(model).device
        starts = np.cumsum([0, *(row.tokens for row in rows)])
        ends = [int(start) + end for start, row in zip(starts, rows, strict=False) for end in row.ends]
        batch = collate([one for row in rows for one in row.rendered], renderer, stops=ends)
        places = torch.tensor([end - 1 for end in ends], dtype=torch.long, device=device)
        counts = [one.layout.supervised for row in rows if row.gain for one in row.rendered]
        with autocast(device.type, self._loaded.autocast_to):
            passed = model(**send_to_device(batch, device), next_of=places, with_scores=bool(counts))
        logits, scores = passed if counts else (passed, None)
        of_choices = iter(self._of_choices(logits, [choice for row in rows for choice in row.choices]))
        of_answers = iter(_means(scores, counts))
        answered = []
        for one, row in zip(ready, rows, strict=True):
            gain = tuple(value for _ in row.rendered if row.gain and (value := next(of_answers)) is not None)
            figures = tuple(next(of_choices) if isinstance(prompt, Choice) else gain for prompt in one.asked.prompts)
            answered.append(Answered(one.asked.number, figures))
        return answered

    def _of_choices(self, logits: torch.Tensor, choices: Sequence[Choice]) -> list[Figures]:
        """Return the log-probabilities of the options of each choice, given that one of them is the answer."""
        found = []
        for values, choice in zip(logits, choices, strict=True):
            tokens = torch.tensor([self._token(option) for option in choice.options], device=logits.device)
            found.append(values.index_select(0, tokens).double())
        return [normalized(values) for values in (value.cpu().tolist() for value in found)]

    def _token(self, option: str) -> int:
        tokens = self._loaded.tokenizer.encode(option, add_special_tokens=False)
        assert len(tokens) == 1  # all tokenizers of Qwen have all letters and digits
        return tokens[0]


def _means(scores: Scores | None, counts: Sequence[int]) -> list[float | None]:
    """Return the mean log-probability of the learned tokens of each sample, None for a sample without any."""
    parts = () if scores is None else scores.log_probs.double().cpu().split(list(counts))
    return [float(part.mean()) if len(part) else None for part in parts]
