"""Answers for the report are those that the published model would give."""

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.evaluation import generation
from qwenvl_train.evaluation.generation import AnswerGenerator
from qwenvl_train.families import FAMILIES
from qwenvl_train.model.build import arrange
from tests.conftest import conversation, sample_of
from tests.loading import renderer_of
from tests.settings import run_config


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
def test_a_question_with_pictures_is_answered_as_the_published_model_does(
    model_type, adapters, checkpoints, pictures, monkeypatch
):
    """Up to the limit, whatever the expected answer is."""
    monkeypatch.setattr(generation, "MAX_NEW_TOKENS", 48)
    path = checkpoints[model_type]
    processor = AutoProcessor.from_pretrained(path)
    renderer = renderer_of(processor, path)
    question = ("user", [pictures[1], "and", pictures[3], "What?"])
    asked = conversation(question, ("assistant", ["Red."]))
    theirs, ours = (AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval() for _ in range(2))
    config = run_config(**{"tune_mm_llm": True, "lora.llm": adapters})
    model = arrange(ours, config, FAMILIES[model_type], processor).eval()
    generate = AnswerGenerator(model, renderer, processor)
    given = generate(sample_of(asked))
    much_expected = conversation(question, ("assistant", ["Red and blue. " * 20]))
    rendered = renderer.render(sample_of(asked))
    prompt = rendered.layout.input_ids[: (rendered.layout.labels != -100).argmax()]
    images = [Image.open(pictures[index]) for index in (1, 3)]
    inputs = dict(processor.image_processor(images, return_tensors="pt"))
    inputs["input_ids"] = torch.from_numpy(prompt)[None]
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == theirs.config.image_token_id).long()
    produced = theirs.generate(**inputs, max_new_tokens=48, do_sample=False, repetition_penalty=1.0)
    words = processor.tokenizer.decode(produced[0, len(prompt) :], skip_special_tokens=True)
    assert given.generated == generate(sample_of(much_expected)).generated == words != ""
