"""The files of a processor: each generation of them alone gives the same processor."""

import json

import numpy as np
import pytest
from transformers import AutoImageProcessor, AutoProcessor, AutoVideoProcessor

from qwenvl_train.model.processor_files import save_processor

PICTURE = np.random.default_rng(0).integers(0, 256, (130, 61, 3), dtype=np.uint8)


@pytest.mark.parametrize("without", [(), ("processor_config.json", "chat_template.jinja")])
def test_the_older_files_are_the_same_processor(without, model_type, checkpoints, tmp_path):
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    processor.image_processor.size["longest_edge"] = 5 * 32 * 32  # a limit of the run's own, which must matter
    save_processor(processor, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    for name in without:
        (tmp_path / name).unlink()
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(processor)
    assert loaded.to_dict() == processor.to_dict()
    assert loaded.chat_template == loaded.tokenizer.chat_template == processor.chat_template
    assert loaded.tokenizer.all_special_tokens == processor.tokenizer.all_special_tokens
    image, video = AutoImageProcessor.from_pretrained(tmp_path), AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(video) is type(processor.video_processor)
    for one, other, key in [
        (image(PICTURE, return_tensors="pt"), processor.image_processor(PICTURE, return_tensors="pt"), "pixel_values"),
        (
            video([PICTURE] * 4, return_tensors="pt", do_sample_frames=False),
            processor.video_processor([PICTURE] * 4, return_tensors="pt", do_sample_frames=False),
            "pixel_values_videos",
        ),
    ]:
        assert np.array_equal(one[key], other[key])


def test_they_have_what_readers_of_published_repositories_expect(model_type, checkpoints, tmp_path):
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    save_processor(processor, tmp_path)
    images, videos, tokenizer, template = (
        json.loads((tmp_path / f"{name}.json").read_text())
        for name in ("preprocessor_config", "video_preprocessor_config", "tokenizer_config", "chat_template")
    )
    assert images["processor_class"] == videos["processor_class"] == type(processor).__name__
    assert images["image_processor_type"] == "Qwen2VLImageProcessor"
    assert videos["video_processor_type"] == type(processor.video_processor).__name__
    assert (images["min_pixels"], images["max_pixels"]) == tuple(
        images["size"][edge] for edge in ("shortest_edge", "longest_edge")
    )
    assert tokenizer["chat_template"] == template["chat_template"] == processor.chat_template
    # transformers before version 5 expects a dictionary under this name.
    assert "extra_special_tokens" not in tokenizer
