"""Generates answers to samples, several at once: the most likely ones, or some that are drawn by chance."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

import numpy as np
from accelerate.utils import send_to_device
from peft import PeftModel
from transformers import PreTrainedModel

from qwenvl_train.batch import Batch
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.index.lengths import Problem, problem_of
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.render.layout import IGNORED, Layout
from qwenvl_train.data.render.regions import in_words
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.render.written import regions_in
from qwenvl_train.data.sample import Box, Coordinates, Image, Region, Sample, Video
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.drawing import Drawing
from qwenvl_train.families.family import Family
from qwenvl_train.families.thoughts import BEGIN_THOUGHTS, without_thoughts
from qwenvl_train.model.build import base_model
from qwenvl_train.model.choosing import Chooser, most_likely
from qwenvl_train.model.decoding import Prompt, decode, this_process

NO_PROMPT = Prompt(0, 1)
"""What a process without requests continues, since all processes must go through a sharded model together."""


@dataclass(frozen=True)
class Request:
    """A trained turn of a sample, which the model answers given the true turns before it."""

    sample: Sample
    turn: int
    """Number of the turn among the trained turns of its conversation, counted from 1."""
    text: str
    """The text of the turn before the answer, as the model reads it, without its media."""
    expected: str
    rejected: str | None
    """The rejected answer of a preference pair. None for other samples."""
    picture: PictureSize | None
    """The size of the picture, if the sample has a single one. The numbers in an answer do not name their picture."""
    numbers_are_regions: bool
    """Whether numbers in brackets are boxes and points."""
    thoughts: str = ""
    """The beginning of the thoughts, if the prompt ends with it. It is part of every answer."""
    accepted: tuple[str, ...] = ()
    """Further right answers."""
    targets: tuple[Box, ...] = ()
    """The boxes of the element that the answer acts on, in pixels of the original picture. Empty without `picture`."""

    def regions(self, text: str, family: Family) -> tuple[Region, ...]:
        """Return the boxes and points in an answer, in pixels of the original picture. Those in thoughts do not
        count."""
        if self.picture is None:
            return ()
        return tuple(regions_in(without_thoughts(text), self.picture, family, self.numbers_are_regions))


@dataclass(frozen=True)
class RequestRow:
    """A packed row of samples, with the turns that are to be answered."""

    batch: Batch
    requests: tuple[Request, ...]
    prompts: tuple[Prompt, ...]
    """The tokens of the packed row before each answer."""
    problems: tuple[Problem, ...]
    """Samples that could not be decoded. They are not in the batch."""


class Try(NamedTuple):
    """One of several answers to a request."""

    number: int
    """Counted from 1."""
    seed: int | None
    """The seed by which the answer was drawn. None for the most likely answer."""


FIRST = Try(1, None)


@dataclass(frozen=True)
class Answer:
    request: Request
    text: str
    tokens: int | None
    """Number of generated tokens. None if a server has not told."""
    ended: bool
    """Whether the model has ended the answer. Otherwise it was cut at the limit."""
    expected_regions: tuple[Region, ...]
    """The boxes and points in the expected answer, in pixels of the original picture."""
    regions: tuple[Region, ...]
    """The boxes and points in the generated answer."""
    drawn: Try = FIRST


def request_row(samples: Sequence[Sample], renderer: Renderer, tokenizer: Any) -> RequestRow:
    """Return the packed row of some samples, with a request for each trained turn."""
    rendered: list[Rendered] = []
    requests: list[Request] = []
    prompts: list[Prompt] = []
    problems: list[Problem] = []
    start = 0
    for sample in samples:
        try:
            one = renderer.render(sample.chosen_conversation)
            asked = _requests(sample, one.layout, renderer, tokenizer)
        except UserError as error:
            problems.append(problem_of((sample.source, sample.line), error))
            continue
        for request, end in asked:
            requests.append(request)
            prompts.append(Prompt(start, start + end))
        rendered.append(one)
        start += one.layout.length
    batch = collate(rendered or [renderer.blank()], renderer, stops=[prompt.end for prompt in prompts or [NO_PROMPT]])
    return RequestRow(batch, tuple(requests), tuple(prompts), tuple(problems))


def requests_of(sample: Sample, renderer: Renderer, tokenizer: Any) -> list[Request]:
    """Return the requests of a sample, without its packed row, as a server of models needs them."""
    layout = renderer.layout(sample.chosen_conversation)
    return [request for request, _ in _requests(sample, layout, renderer, tokenizer)]


def _requests(sample: Sample, layout: Layout, renderer: Renderer, tokenizer: Any) -> list[tuple[Request, int]]:
    """Return the requests of a sample, each with the position of the answer's first token."""
    rejected: list[str] = []
    if sample.rejected:
        lost = renderer.layout(sample.rejected_conversation)
        rejected = [
            _thoughts_before(lost, start, tokenizer) + _words(tokenizer, lost.input_ids[start:end])
            for _, start, end in _trained_turns(lost)
        ]
    conversation = sample.chosen_conversation
    # A system turn that the sample does not have may come first.
    added = len(layout.turns) - len(conversation.turns)
    requests: list[tuple[Request, int]] = []
    for number, (answered, other) in enumerate(zip_longest(_trained_turns(layout), rejected), start=1):
        if answered is None:
            break
        place, start, end = answered
        turn = conversation.turns[place - added]
        thoughts = _thoughts_before(layout, start, tokenizer)
        request = Request(
            sample,
            number,
            _text_before(conversation, layout, place - added, renderer.family),
            thoughts + _words(tokenizer, layout.input_ids[start:end]),
            other,
            layout.pictures[0] if len(layout.pictures) == 1 else None,
            any(isinstance(part, Coordinates) for part in turn.parts),
            thoughts,
        )
        requests.append((request, start))
    if requests:  # what the row has for scoring is about the last turn
        last, start = requests[-1]
        accepted = tuple(text for text in sample.accepted if text != without_thoughts(last.expected))
        targets = sample.targets if last.picture is not None else ()
        requests[-1] = replace(last, accepted=accepted, targets=targets), start
    return requests


def _trained_turns(layout: Layout) -> Iterator[tuple[int, int, int]]:
    """Yield the index of each trained turn, the position of its first learned token, and the end of its last one."""
    starts = [turn.token for turn in layout.turns]
    for place, (start, stop) in enumerate(pairwise([*starts, layout.length])):
        if len(learned := np.flatnonzero(layout.labels[start:stop] != IGNORED)):
            yield place, start + int(learned[0]), start + int(learned[-1]) + 1


def _thoughts_before(layout: Layout, start: int, tokenizer: Any) -> str:
    """Return the beginning of the thoughts if the tokens before `start` end with it."""
    most = len(BEGIN_THOUGHTS)  # one token for each character
    given = tokenizer.decode(layout.input_ids[max(0, start - most) : start])
    return BEGIN_THOUGHTS if given.endswith(BEGIN_THOUGHTS) else ""


def _text_before(sample: Sample, layout: Layout, place: int, family: Family) -> str:
    if not place:
        return ""
    sizes = [(size.original, size.resized) for size in layout.pictures]
    return "".join(
        in_words(part, family, sizes, sample.where)
        for part in sample.turns[place - 1].parts
        if not isinstance(part, Image | Video)
    )


def _words(tokenizer: Any, ids: Any) -> str:
    """Return the text of an answer, without the token that ends it. Other control tokens stay, since an answer with
    boxes may consist of them."""
    return tokenizer.decode(ids).removesuffix("<|endoftext|>").removesuffix("<|im_end|>")


@dataclass(frozen=True)
class AnswerGenerator:
    model: PreTrainedModel | PeftModel
    """A model with the packed forward pass, in evaluation mode."""
    family: Family
    tokenizer: Any
    max_new_tokens: int
    """Number of tokens at which an answer is cut. It does not depend on the expected answer, since this would hide that
    a model goes on too long."""
    any_process: Callable[[bool], bool] = this_process
    """Says whether any process has unfinished answers. With sharded weights, all processes must go on until then."""
    drawing: Drawing | None = None
    """How several answers to each request are drawn. With None, each has its most likely answer."""

    def answers_to(self, renderer: Renderer, samples: Sequence[Sample]) -> list[Answer]:
        """Return the answers to the trained turns of some samples, without those that cannot be decoded."""
        return self(request_row(samples, renderer, self.tokenizer))

    def __call__(self, row: RequestRow) -> list[Answer]:
        """Return the generated answers to the requests of a packed row, those to one request after each other. If
        weights are sharded, all processes must call this together, also with a row without requests."""
        tries = self.drawing.tries if self.drawing else 1
        requests = [request for request in row.requests for _ in range(tries)]
        prompts = [prompt for prompt in row.prompts for _ in range(tries)] or [NO_PROMPT]
        limit = self.max_new_tokens if requests else 1
        seeds, choose = self._drawn(row.requests, limit)
        batch = send_to_device(row.batch, base_model(self.model).device)
        decoded = decode(self.model, batch, prompts, limit, choose, self.any_process)
        return [
            answer_to(request, _words(self.tokenizer, one.tokens), one.ended, len(one.tokens), self.family, number)
            for request, one, number in zip(requests, decoded, _numbered(seeds, tries), strict=False)
        ]

    def _drawn(self, requests: Sequence[Request], limit: int) -> tuple[list[int | None], Chooser]:
        """Return the seed of each answer, and what chooses the tokens."""
        if self.drawing is None or not requests:
            return [None] * len(requests), most_likely
        seeds = [seed for request in requests for seed in self.drawing.seeds(request.sample, request.turn)]
        return list(seeds), self.drawing.chooser(seeds, limit)


def _numbered(seeds: Sequence[int | None], tries: int) -> list[Try]:
    """Return the number and the seed of each answer, where so many answers belong to each request."""
    return [Try(place % tries + 1, seed) for place, seed in enumerate(seeds)]


def answer_to(
    request: Request, words: str, ended: bool, tokens: int | None, family: Family, drawn: Try = FIRST
) -> Answer:
    """Return the answer with the words that the model has written."""
    text = request.thoughts + words
    expected, given = (request.regions(one, family) for one in (request.expected, text))
    return Answer(request, text, tokens, ended, expected, given, drawn)


def plain_regions(regions: Sequence[Region]) -> list[dict[str, Any]]:
    """Return boxes and points as plain data."""
    return [
        {"label": region.label, "coordinates": [round(value, 1) for value in region.coordinates]} for region in regions
    ]
