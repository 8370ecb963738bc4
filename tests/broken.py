"""A model that cannot compute one of the rows."""

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

WORD = " square"


def write_broken_model(checkpoint: Path, folder: Path) -> Path:
    """Write a model whose input embedding of WORD is not a number, so that this is true of every sample with it."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    (token,) = processor.tokenizer(WORD).input_ids
    # Apart from the output embeddings, which would break every sample.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = torch.nan
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
