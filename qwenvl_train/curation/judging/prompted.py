"""The packed row in which a model judges: a conversation, and the questions that continue it.

The questions share the conversation with its pictures, which the model so reads once. They attend to it but not to each
other. The conversation without its pictures lies beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qwenvl_train.batch import Piece
from qwenvl_train.curation.judging.prompts import Choice, PictureGain, Prompt
from qwenvl_train.data.index.lengths import refuse_long
from qwenvl_train.data.render.layout import IGNORED, Layout, branched, shared_beginning
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.sample import Image, Sample, Text, Turn, Video
from qwenvl_train.errors import UserError


@dataclass(frozen=True)
class PromptedRow:
    """The samples of a packed row that judge one row."""

    rendered: tuple[Rendered, ...]
    choices: tuple[Choice, ...]
    ends: tuple[int, ...]
    """For each choice, the position after the last token of its question, from the first token of the first sample."""
    gain: bool
    """Whether the learned tokens are the row's answers, in the conversation and then in that without pictures."""

    @property
    def tokens(self) -> int:
        return sum(one.layout.length for one in self.rendered)


def prompted_row(sample: Sample, prompts: Sequence[Prompt], renderer: Renderer, tokenizer: Any) -> PromptedRow:
    """Return the packed row of a conversation.

    Raises:
        UserError: If the conversation is too long, or cannot be rendered.
    """
    choices = tuple(prompt for prompt in prompts if isinstance(prompt, Choice))
    gain = any(isinstance(prompt, PictureGain) for prompt in prompts)
    base = renderer.layout(sample)
    refuse_long(sample, (base.length, base.supervised, base.patches, len(base.media), 0, 0), renderer.max_length)
    if gain and not base.supervised:
        raise UserError(f"{sample.where} has no supervised token: its answers are empty.")
    asked = [_question(sample, choice, base, renderer, tokenizer) for choice in choices]
    rendered: list[Rendered] = []
    ends: list[int] = []
    if asked:
        # Among each other, the questions share the whole conversation. Its last answer may have thoughts that a chat
        # format leaves out once a question follows, so that less is shared with the conversation alone.
        first, *others = asked
        together = gain and _shares_media(first, base, renderer)
        if together:
            first = _with_labels(first, base)
        rendered.append(renderer.render(sample, branched(first, [*others, base] if together else others)))
        ends = _ends(first, others)
    if gain and not (asked and together):
        rendered.append(renderer.render(sample, base))
    if gain:
        rendered.append(renderer.render(without_media(sample)))
    return PromptedRow(tuple(rendered), choices, tuple(ends), gain)


def _question(sample: Sample, choice: Choice, base: Layout, renderer: Renderer, tokenizer: Any) -> Layout:
    """Return the layout of a conversation and a question, up to the token before the letter or digit of its answer.

    An answer is laid out, too, so that what the chat format writes before answers is there, such as empty thoughts.
    """
    question = Turn("user", (Text(choice.text),), train=False)
    answer = Turn("assistant", (Text(choice.options[0]),), train=True)
    whole = renderer.layout(replace(sample, turns=(*sample.turns, question, answer)), base.media)
    place = int(whole.learned[-2])  # the last learned token ends the turn
    assert tokenizer.decode(whole.input_ids[place : place + 1]) == choice.options[0]
    return replace(
        whole,
        input_ids=whole.input_ids[:place],
        labels=np.full(place, IGNORED),
        position_ids=whole.position_ids[:, :place],
        turns=whole.turns[:-1],
        pieces=(Piece(place),),
    )


def _shares_media(base: Layout, branch: Layout, renderer: Renderer) -> bool:
    """Return whether all media of a branch are in what it shares with the base. They are not if a chat format leaves
    out the thoughts of earlier answers, and a medium follows them."""
    rest = branch.input_ids[shared_beginning(base, branch) :]
    return not np.isin(rest, (renderer.image_pad, renderer.video_pad)).any()


def _with_labels(question: Layout, conversation: Layout) -> Layout:
    """Return the layout of a question in which the answers that it shares with a conversation are learned."""
    shared = shared_beginning(question, conversation)
    return replace(question, labels=np.concatenate([conversation.labels[:shared], question.labels[shared:]]))


def _ends(first: Layout, others: Sequence[Layout]) -> list[int]:
    """Return the position after the last token of each question."""
    rests = [other.length - shared_beginning(first, other) for other in others]
    return np.cumsum([first.length, *rests]).tolist()


def without_media(sample: Sample) -> Sample:
    """Return a conversation without its pictures and videos."""
    turns = (
        replace(turn, parts=tuple(part for part in turn.parts if not isinstance(part, Image | Video)))
        for turn in sample.turns
    )
    return replace(sample, turns=tuple(turns))
