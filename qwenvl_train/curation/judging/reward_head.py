"""Scores by a sequence classifier, such as a reward model. It reads the text of a conversation, and sees no pictures.

transformers has such classifiers for the text models of Qwen, and for Qwen3.5, whose pictures are left out, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.curation.judging.engine import Answered, Asked
from qwenvl_train.curation.judging.prompts import DIGITS, Reward, expected_score, normalized
from qwenvl_train.curation.view import turn_text
from qwenvl_train.data.sample import Sample
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.evaluation.batches import in_halves
from qwenvl_train.model.load import identity_of
from qwenvl_train.model.pretrained import from_pretrained


@dataclass(frozen=True)
class _Ready:
    number: int
    sample: Sample
    ids: tuple[int, ...]


class RewardEngine:
    all_at_once = True
    proven = False

    def __init__(self, config: ModelConfig, key: str, dtype: torch.dtype, device: torch.device, batch_tokens: int):
        """
        Args:
            config: The model settings, with the path of the classifier.
            key: The setting with that path, for error messages.
        """
        self._config, self._key, self._dtype, self._device = config, key, dtype, device
        self._batch_tokens = batch_tokens
        self.identity = f"{self._named(lambda: identity_of(config))} {dtype}"

    def answers(self, rows: Sequence[Asked]) -> Iterator[list[Answered]]:
        most = self._most  # loads the classifier, whose errors are not those of a row
        group: list[_Ready] = []
        for row in rows:
            assert row.prompts == (Reward(),)
            try:
                ready = _Ready(row.number, row.sample, self._ids(row.sample, most))
            except UserError as error:
                yield [Answered(row.number, (), message_of(error))]
                continue
            longest = max(len(one.ids) for one in (*group, ready))
            if group and (longest * (len(group) + 1) > self._batch_tokens or not self._can_pad):
                yield in_halves(group, self._scored, lambda one: one.sample.where)
                group = []
            group.append(ready)
        if group:
            yield in_halves(group, self._scored, lambda one: one.sample.where)

    @torch.no_grad()
    def _scored(self, group: Sequence[_Ready]) -> list[Answered]:
        longest = max(len(one.ids) for one in group)
        pad = self._tokenizer.pad_token_id or 0  # only used if the tokenizer has one
        ids = torch.tensor([[*one.ids, *[pad] * (longest - len(one.ids))] for one in group], device=self._device)
        lengths = torch.tensor([len(one.ids) for one in group], device=self._device)
        mask = torch.arange(longest, device=self._device)[None] < lengths[:, None]
        logits = self._model(input_ids=ids, attention_mask=mask.long()).logits.double().cpu().tolist()
        return [Answered(one.number, ((_score(values),),)) for one, values in zip(group, logits, strict=True)]

    def _ids(self, sample: Sample, most: int) -> tuple[int, ...]:
        messages = [{"role": turn.role, "content": turn_text(turn)} for turn in sample.turns]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError as error:
            raise UserError(f"{sample.where}: the chat template of {self._key} refuses the row: {error}.") from None
        ids = tuple(self._tokenizer(text, add_special_tokens=False).input_ids)
        if len(ids) > most:
            raise UserError(f"{sample.where} has {len(ids)} tokens, but the reward head reads only {most}.")
        return ids

    @property
    def _can_pad(self) -> bool:
        return self._tokenizer.pad_token_id is not None

    @cached_property
    def _most(self) -> int:
        of_tokenizer = self._tokenizer.model_max_length
        text = self._model.config.get_text_config()
        return min(of_tokenizer, getattr(text, "max_position_embeddings", None) or of_tokenizer)

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = self._named(lambda: from_pretrained(self._config, AutoTokenizer))
        if not tokenizer.chat_template:
            raise UserError(
                f"{self._key} {self._config.path} has no chat template, so that it cannot be given a conversation; add "
                "the template with which it was trained (chat_template.jinja)."
            )
        return tokenizer

    @cached_property
    def _model(self) -> torch.nn.Module:
        options = {"dtype": self._dtype, "output_loading_info": True}
        model, loaded = self._named(
            lambda: from_pretrained(self._config, AutoModelForSequenceClassification, **options)
        )
        if loaded["missing_keys"]:
            raise UserError(
                f"{self._key} {self._config.path} is no sequence classifier: it has no weights for "
                f"{sorted(loaded['missing_keys'])[0]}."
            )
        if model.config.num_labels not in (1, len(DIGITS)):
            raise UserError(
                f"{self._key} {self._config.path} has {model.config.num_labels} labels, but a reward head has 1, or "
                f"{len(DIGITS)} for the scores from {DIGITS[0]} to {DIGITS[-1]}."
            )
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = self._tokenizer.pad_token_id
        return model.to(self._device).eval()

    def _named(self, load: Any) -> Any:
        """Return what `load` returns. Its errors are about this checkpoint, not about model.path."""
        try:
            return load()
        except UserError as error:
            raise UserError(str(error).replace("model.path", self._key)) from None


def _score(logits: Sequence[float]) -> float:
    """Return the single logit, or the expected value of the scores that the labels stand for."""
    return logits[0] if len(logits) == 1 else expected_score(normalized(logits))
