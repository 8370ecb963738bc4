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
    (given,) = generate(sample_of(asked))
    much_expected = conversation(question, ("assistant", ["Red and blue. " * 20]))
    rendered = renderer.render(sample_of(asked))
    prompt = rendered.layout.input_ids[: (rendered.layout.labels != -100).argmax()]
    images = [Image.open(pictures[index]) for index in (1, 3)]
    inputs = dict(processor.image_processor(images, return_tensors="pt"))
    inputs["input_ids"] = torch.from_numpy(prompt)[None]
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == theirs.config.image_token_id).long()
    produced = theirs.generate(**inputs, max_new_tokens=48, do_sample=False, repetition_penalty=1.0)
    words = processor.tokenizer.decode(produced[0, len(prompt) :]).removesuffix("<|im_end|>")
    assert given.generated == generate(sample_of(much_expected))[0].generated == words != ""


def generator_of(checkpoint) -> AnswerGenerator:
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    return AnswerGenerator(model, renderer_of(processor, checkpoint), processor)


def test_every_trained_turn_is_answered_from_what_comes_before_it(checkpoints, pictures, monkeypatch):
    monkeypatch.setattr(generation, "MAX_NEW_TOKENS", 8)
    generate = generator_of(checkpoints["qwen2_5_vl"])
    first = [("user", [pictures[1], "What?"]), ("assistant", ["Red."])]
    second = [("user", ["Sure?"]), ("assistant", ["Yes."])]
    third = [("user", [pictures[2], "And this?"]), ("assistant", ["Blue."])]
    row = conversation(*first, *second, *third)
    row["messages"][3]["train"] = False
    answers = generate(sample_of(row))
    assert [(one.turn, one.prompt, one.expected) for one in answers] == [
        (1, "What?", "Red."), (2, "And this?", "Blue.")
    ]  # fmt: skip
    (alone,) = generate(sample_of(conversation(*first)))
    assert answers[0].generated == alone.generated
    rest = conversation(*first, *second, *third)
    for index in (1, 3):
        rest["messages"][index]["train"] = False
    (last,) = generate(sample_of(rest))
    assert answers[1].generated == last.generated


@pytest.mark.parametrize(
    ("model_type", "name"), [("qwen2_vl", "<|object_ref_start|>dog<|object_ref_end|>"), ("qwen3_vl", "dog")]
)
def test_names_and_boxes_are_in_question_and_answer(model_type, name, checkpoints, pictures, monkeypatch):
    """In the notation of the family, and the boxes in pixels of the original picture."""
    monkeypatch.setattr(generation, "MAX_NEW_TOKENS", 1)
    row = {
        "messages": [
            {"role": "user", "content": "<image>Find <ref-object>."},
            {"role": "assistant", "content": "At <bbox>."},
        ],
        "images": [str(pictures[3])],
        "objects": {"ref": ["dog"], "bbox": [[20, 12, 100, 60]]},
    }
    (answer,) = generator_of(checkpoints[model_type])(sample_of(row))
    assert answer.prompt == f"Find {name}."
    assert answer.expected.startswith("At ")
    (box,) = answer.expected_regions
    assert box.coordinates == pytest.approx((20, 12, 100, 60), abs=1)
