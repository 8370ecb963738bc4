"""From a Sample to token ids, labels and positions, built turn by turn as the published template writes them.

Labels follow from construction: what stands in a trained answer, and its end-of-turn token. No id is searched
for, so words in a user's text can neither start a supervised span nor become a placeholder.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer

from qwenvl_train.data.media import PictureSize, PixelSettings, load_patches, measure
from qwenvl_train.data.positions import mrope_positions
from qwenvl_train.data.sample import Image, Sample, Text, Turn
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family

IGNORED = -100

# What gives a conversation its shape is written by `layout` alone.
_CONTROL = re.compile(r"(<\|(?:im_start|im_end|endoftext|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>)")


@dataclass(frozen=True)
class Layout:
    """All that is known of a sample before its pictures are decoded."""

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray
    pictures: tuple[PictureSize, ...]

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        return int((self.labels != IGNORED).sum())


@dataclass(frozen=True)
class Rendered:
    layout: Layout
    patches: np.ndarray | None
    """All pictures' patches one after the other; None without pictures."""


class Renderer:
    def __init__(self, processor, family: Family, where: str):
        self.family = family
        self.pixels = PixelSettings.of(processor.image_processor)
        self._backend: str = processor.tokenizer.backend_tokenizer.to_str()
        ids = processor.tokenizer.convert_tokens_to_ids
        self._turn_start, self._turn_end = ids("<|im_start|>"), ids("<|im_end|>")
        self._vision_start, self._vision_end = ids("<|vision_start|>"), ids("<|vision_end|>")
        self._image_pad = ids("<|image_pad|>")
        _check_template(processor, family, where)

    def layout(self, sample: Sample) -> Layout:
        """Tokens, labels and positions from text and picture headers."""
        ids: list[int] = []
        labels: list[int] = []
        pictures: list[PictureSize] = []
        starts: list[int] = []

        def put(tokens: list[int], supervised: bool = False) -> None:
            ids.extend(tokens)
            labels.extend(tokens if supervised else [IGNORED] * len(tokens))

        for turn in self._with_system(sample):
            put([self._turn_start])
            text = f"{turn.role}\n"
            if turn.role == "assistant":
                # The model is asked to go on after exactly these tokens, so the answer never merges with them.
                put(self._encode(text))
                text = ""
            for part in turn.parts:
                if isinstance(part, Text):
                    text += part.text
                    continue
                put(self._encode(text), turn.train)
                text = ""
                size = measure(part.path, self.pixels, sample.where)
                put([self._vision_start])
                starts.append(len(ids))
                put([self._image_pad] * size.tokens)
                put([self._vision_end])
                pictures.append(size)
            put(self._encode(text), turn.train)
            put([self._turn_end], turn.train)
            put(self._encode("\n"))
        grids = [picture.grid for picture in pictures]
        positions = mrope_positions(len(ids), list(zip(starts, grids, strict=True)), self.pixels.merge)
        return Layout(np.array(ids), np.array(labels), positions, tuple(pictures))

    def render(self, sample: Sample) -> Rendered:
        layout = self.layout(sample)
        patches = [
            load_patches(image.path, size, self.pixels, sample.where)
            for image, size in zip(sample.images, layout.pictures, strict=True)
        ]
        return Rendered(layout, np.concatenate(patches) if patches else None)

    def _with_system(self, sample: Sample) -> tuple[Turn, ...]:
        if self.family.default_system is None or sample.turns[0].role == "system":
            return sample.turns
        return (Turn("system", (Text(self.family.default_system),), train=False), *sample.turns)

    def _encode(self, text: str) -> list[int]:
        """Control tokens in a sample's words are words; the rest of the vocabulary, boxes included, is itself."""
        as_published, as_words = self._tokenizers
        return [
            token
            for index, piece in enumerate(_CONTROL.split(text))
            for token in (as_words if index % 2 else as_published).encode(piece, add_special_tokens=False).ids
        ]

    @cached_property
    def _tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        as_published, as_words = Tokenizer.from_str(self._backend), Tokenizer.from_str(self._backend)
        as_words.encode_special_tokens = True
        return as_published, as_words

    def __getstate__(self) -> dict:
        """Workers build their own tokenizers."""
        return {key: value for key, value in self.__dict__.items() if key != "_tokenizers"}


def _check_template(processor, family: Family, where: str) -> None:
    """A checkpoint whose own chat template says otherwise would be trained on one format and served in another."""
    turns = (
        Turn("user", (Image("x"), Text("Which bird?")), train=False),
        Turn("assistant", (Text("A wren."),), train=True),
        Turn("user", (Text("Sure?"),), train=False),
        Turn("assistant", (Text("Yes."),), train=True),
    )
    ours = "" if family.default_system is None else f"<|im_start|>system\n{family.default_system}<|im_end|>\n"
    for turn in turns:
        parts = (
            part.text if isinstance(part, Text) else "<|vision_start|><|image_pad|><|vision_end|>"
            for part in turn.parts
        )
        ours += f"<|im_start|>{turn.role}\n{''.join(parts)}<|im_end|>\n"
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image", "image": "x"}
                for part in turn.parts
            ],
        }
        for turn in turns
    ]
    theirs = processor.apply_chat_template(messages, tokenize=False)
    if theirs != ours:
        raise UserError(
            f"The chat template of {where} does not write conversations as {family.name} does: "
            f"it gives {theirs!r}, expected is {ours!r}. Use a checkpoint with the published template."
        )
