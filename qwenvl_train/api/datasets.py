"""Data files as torch datasets, in the form that the models of transformers take: padded rows with pixel values.

They are for other training loops and other trainers. A run of this project packs rows instead.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedConfig, ProcessorMixin

from qwenvl_train.config.compose import compose
from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.config.validate import validate
from qwenvl_train.data.index.lengths import measure_sample
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.samples import Samples
from qwenvl_train.data.sources.finding import refuse_missing
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.media_inputs import media_inputs
from qwenvl_train.families import family_of
from qwenvl_train.families.family import Family
from qwenvl_train.model.pretrained import load_family, with_own_numbers
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.verbs.inspect.settings import INSPECT

Inputs = dict[str, torch.Tensor]
Entry = str | Path | Mapping[str, Any]

_DEFAULTS = {"data.packing": "false", "data.max_length": "null"}
_SETTINGS = (
    "data.allow_remote", "data.cache", "data.cache_pictures", "data.max_length", "data.too_long", "data.vision_ids",
    "data.thinking", "model.video.", "output_dir",
)  # fmt: skip
"""The settings that take part in what a dataset returns."""


class ConversationDataset(Dataset[Inputs]):
    """The conversations of data files. Each item holds the inputs of a model of transformers for one conversation,
    without a batch dimension; `collate` makes a batch of items.

    An item has:
        input_ids: [T] int64.
        labels: [T] int64, the token id at tokens that are learned, -100 elsewhere.
        position_ids: [3, T] int64, the M-RoPE positions in time, height and width.
        pixel_values, image_grid_thw: [patches, values] float32 and [pictures, 3] int64, if there are pictures.
        pixel_values_videos, video_grid_thw: the same for clips, if there are any.
    """

    def __init__(self, samples: Samples, renderer: Renderer, processor: ProcessorMixin):
        self._samples, self._renderer, self._processor = samples, renderer, processor

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Inputs:
        return self._inputs(self._sample(index))

    def collate(self, items: Sequence[Inputs]) -> Inputs:
        """Return the batch of some items, padded on the right.

        A batch has the entries of an item with a batch dimension, [B, T] (position_ids: [3, B, T]), and an
        attention_mask. The pixel values of all items are one after the other.
        """
        ids, labels, positions = ([item[key] for item in items] for key in ("input_ids", "labels", "position_ids"))
        batch = {
            "input_ids": pad_sequence(ids, True, self._processor.tokenizer.pad_token_id),
            "labels": pad_sequence(labels, True, IGNORED),
            "position_ids": pad_sequence([position.T for position in positions], True).permute(2, 0, 1),
            "attention_mask": pad_sequence([torch.ones_like(own) for own in ids], True),
        }
        for key in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"):
            if media := [item[key] for item in items if key in item]:
                batch[key] = torch.cat(media)
        return batch

    def _sample(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        sample = self._samples[index % len(self)]
        measure_sample(sample, self._renderer)  # raises UserError if the sample cannot be used
        return sample

    def _inputs(self, sample: Sample) -> Inputs:
        rendered = self._renderer.render(sample)
        layout = rendered.layout
        media = media_inputs(rendered, self._renderer, self._processor, torch.device("cpu"))
        media.pop("second_per_grid_ts", None)  # it is for positions, which are given
        return {
            "input_ids": torch.from_numpy(layout.input_ids),
            "labels": torch.from_numpy(layout.labels),
            "position_ids": torch.from_numpy(layout.position_ids[1:]),
            **media,
        }


class PreferenceDataset(ConversationDataset):
    """The preference pairs of data files. Each item holds the inputs of two conversations, the chosen and the rejected
    one. A batch of B pairs has 2 * B rows: first all chosen conversations, then all rejected ones, in the same order.
    """

    def __getitem__(self, index: int) -> tuple[Inputs, Inputs]:  # type: ignore[override]
        sample = self._sample(index)
        return self._inputs(sample.chosen_conversation), self._inputs(sample.rejected_conversation)

    def collate(self, items: Sequence[tuple[Inputs, Inputs]]) -> Inputs:  # type: ignore[override]
        chosen, rejected = zip(*items, strict=True)
        return super().collate([*chosen, *rejected])


def open_dataset(
    data: Entry | Sequence[Entry],
    processor: ProcessorMixin,
    settings: Sequence[str] = (),
    config: PreTrainedConfig | None = None,
) -> ConversationDataset:
    """Open the conversations of data files, in any format that `data.train` takes.

    Args:
        data: A file, folder, glob or hub id, a mapping with its settings (`{"path": ..., "media_root": ...}`), or a
            list of these.
        processor: The processor of the model, from `AutoProcessor`. Its pixel limits are those of the pictures.
        settings: Further settings as on the command line, such as `"data.max_length=4096"`.
        config: The config of the model. By default, it is read from where the processor was loaded from.

    Raises:
        UserError: If the data or a setting cannot be used. A row that cannot be used raises it when it is read.
    """
    return ConversationDataset(*_opened(data, processor, [*settings], config), processor)


def open_preferences(
    data: Entry | Sequence[Entry],
    processor: ProcessorMixin,
    settings: Sequence[str] = (),
    config: PreTrainedConfig | None = None,
) -> PreferenceDataset:
    """Open the preference pairs of data files. The arguments are those of `open_dataset`."""
    return PreferenceDataset(*_opened(data, processor, [*settings, "method=dpo"], config), processor)


def _opened(
    data: Entry | Sequence[Entry], processor: ProcessorMixin, settings: list[str], config: PreTrainedConfig | None
) -> tuple[Samples, Renderer]:
    keys = {setting.partition("=")[0] for setting in settings}
    defaults = [f"{key}={value}" for key, value in _DEFAULTS.items() if key not in keys]
    composed = compose(["data=files", "data.train=files", *defaults, *settings], INSPECT)
    if unused := sorted(key for key in keys - {"method"} if not key.startswith(_SETTINGS)):
        raise UserError(
            f"{unused[0]} has no effect on a dataset; settings with an effect are {', '.join(_SETTINGS[:-2])} and "
            "those of model.video."
        )
    if composed.config.data.too_long == "skip":
        raise UserError("data.too_long=skip has no effect on a dataset, which keeps every row; use error or downscale.")
    entries = data if isinstance(data, Sequence) and not isinstance(data, str) else [data]
    tree = composed.config.model_dump()
    tree["data"]["train"] = [str(entry) if isinstance(entry, Path) else entry for entry in entries]
    tree["model"] |= {"path": processor.tokenizer.name_or_path, "family": None, "shape": None}
    checked = validate(tree, composed.given, INSPECT)
    refuse_missing(checked.data)
    samples = Samples(checked.data.train, "data", checked.data.allow_remote, checked.cache_folder)
    return samples, make_renderer(checked, processor, _family(config, checked.model))


def _family(config: PreTrainedConfig | None, model: ModelConfig) -> Family:
    if config is None:
        return load_family(model)
    return with_own_numbers(family_of(config.model_type, "config"), config.vision_config)
