"""A renderer for plans without the checkpoint's tokenizer. It estimates the tokens of text by the number of characters.
Sizes of images and videos follow from their headers and the limits of the run, as in a run."""

from types import SimpleNamespace

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLVideoProcessor,
)

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.families.family import Family
from qwenvl_train.families.tiny import ADDED_TOKENS
from qwenvl_train.model.pretrained import with_own_numbers
from qwenvl_train.model.processor import with_limits
from qwenvl_train.run.rows import renderer_of

LATIN = 4
"""Characters of ASCII text that are counted as one token."""
OTHER = 2
"""Characters of other text that are counted as one token."""


def estimating_renderer(config: RunConfig, family: Family, sizes: PreTrainedConfig) -> Renderer:
    """Return a renderer whose layouts are right except for the number of text tokens."""
    vision = sizes.vision_config
    cut = {
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    videos = Qwen3VLVideoProcessor if family.video_limits == "clip" else Qwen2VLVideoProcessor
    processor = SimpleNamespace(
        image_processor=Qwen2VLImageProcessor(**cut),
        video_processor=videos(**cut),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=_by_characters()),
    )
    return renderer_of(config, with_limits(processor, config.model, family), with_own_numbers(family, vision))


def _by_characters() -> Tokenizer:
    """Return a tokenizer that makes one token of a few characters each, but whole tokens of the published markers."""
    tokenizer = Tokenizer(models.WordLevel({"…": 0}, unk_token="…"))
    pieces = Regex(rf"[\x00-\x7f]{{1,{LATIN}}}|[^\x00-\x7f]{{1,{OTHER}}}")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "isolated")
    tokenizer.add_special_tokens(ADDED_TOKENS)
    return tokenizer
