"""The rows on which an export is compared with its run: held-out ones, or a few that are made up."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw

from qwenvl_train.batch import Batch
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.data.sample import Image, Part, Sample, Text, Turn
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.spread import spread
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.evaluation.media_inputs import media_inputs
from qwenvl_train.run.held_out import split_alone
from qwenvl_train.run.rows import make_renderer, open_rows
from qwenvl_train.verbs.export.settings import ExportConfig

_PREDICTED = 64
"""The most tokens of a row whose logits are compared. Those of one token are 600 kB for a vocabulary of 150,000."""


@dataclass(frozen=True)
class Prompt:
    batch: Batch
    """The row as the packed forward pass takes it."""
    plain: dict[str, torch.Tensor]
    """The row as transformers takes it, with the positions whose logits are compared (predictors), the end of the
    prompt (start), and the media in the prompt (prompt.…)."""


@dataclass(frozen=True)
class Prompts:
    items: list[Prompt]
    words: str
    """Says what they are, such as: 4 held-out rows"""


def prompts_for(config: ExportConfig, processor: Any, family: Any) -> Prompts:
    """Return the rows to compare. Without held-out rows that can be read, they are made up."""
    measuring = make_renderer(config, processor, family)
    # Of a pair, the chosen conversation is compared.
    renderer = make_renderer(config.model_copy(update={"method": "sft"}), processor, family)
    made = partial(_prompt, renderer=renderer, processor=processor)
    reason = ""
    if config.data.eval is not None:
        try:
            samples = _held_out_samples(config, measuring)
            if items := [made(row) for row in _rendered(samples, renderer, config)]:
                return Prompts(items, f"{len(items)} held-out row{'s' if len(items) > 1 else ''}")
            reason = " (no held-out row can be read)"
        except UserError as error:
            reason = f" (the held-out rows cannot be read: {message_of(error).splitlines()[0]})"
    items = [made(renderer.render(sample)) for sample in _made_up()]
    return Prompts(items, f"{len(items)} made-up rows{reason}")


def _rendered(samples: Samples, renderer: Renderer, config: ExportConfig) -> Iterator[Rendered]:
    """Yield some of the samples, spread over the sources. Those that cannot be used are left out."""
    count, found = config.export.rows, 0
    for index in spread([list(indices) for _, indices in samples.files()], 4 * count, config.seed):
        if found == count:
            return
        try:
            rendered = renderer.render(samples[index].chosen_conversation)
        except UserError:
            continue
        found += 1
        yield rendered


def _held_out_samples(config: ExportConfig, renderer: Renderer) -> Samples:
    if config.data.eval_share is None:
        return Samples(config.data.eval_entries, "data.eval", config.data.allow_remote, config.cache_folder)
    from accelerate import PartialState

    rows: Rows = open_rows(config, "data.train", renderer, PartialState())
    return split_alone(config, rows)[1].samples


def _made_up() -> list[Sample]:
    picture = Pillow.new("RGB", (180, 120), "white")
    ImageDraw.Draw(picture).ellipse((40, 20, 120, 100), fill="red", outline="black")
    file = io.BytesIO()
    picture.save(file, "PNG")
    drawn: tuple[Part, ...] = (Image(file.getvalue()), Text("What is in the picture?"))
    asked: tuple[Part, ...] = (Text("What is the capital of France?"),)
    pairs = [(drawn, "A red circle with a black outline."), (asked, "The capital of France is Paris.")]
    return [
        Sample(
            id=str(line),
            source="made up",
            line=line,
            turns=(Turn("user", question, train=False), Turn("assistant", (Text(answer),), train=True)),
        )
        for line, (question, answer) in enumerate(pairs, start=1)
    ]


def _prompt(rendered: Rendered, renderer: Renderer, processor: Any) -> Prompt:
    layout = rendered.layout
    ids = torch.from_numpy(layout.input_ids)[None]
    start = int(np.flatnonzero(layout.labels != IGNORED)[0])
    plain = {
        "input_ids": ids,
        # The first of the four rows separates samples in a packed row.
        "position_ids": torch.from_numpy(layout.position_ids)[1:, None],
        "mm_token_type_ids": (ids == renderer.image_pad).long() + 2 * (ids == renderer.video_pad).long(),
        "predictors": torch.from_numpy(layout.predictor_positions)[:_PREDICTED],
        "start": torch.tensor(start),
    }
    media = partial(media_inputs, rendered, renderer, processor, torch.device("cpu"))
    plain |= media()
    plain |= {f"prompt.{name}": tensor for name, tensor in media(start).items()}
    return Prompt(collate([rendered], renderer), plain)
