"""Generated answers are those that the published model would give."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.evaluation.answering import row_of
from qwenvl_train.evaluation.generation import Answer, AnswerGenerator, request_row
from qwenvl_train.evaluation.media_inputs import media_inputs
from qwenvl_train.evaluation.metrics.table import load_metric
from qwenvl_train.evaluation.scoring import Chosen, score
from qwenvl_train.families import FAMILIES
from qwenvl_train.model.build import arrange
from qwenvl_train.model.decoding import decode
from tests.conftest import conversation, sample_of
from tests.data.test_chat_formats import published
from tests.loading import renderer_of
from tests.settings import run_config
from tests.videos import write_video


class Generator:
    """The trained model of a checkpoint, which answers rows."""

    def __init__(self, checkpoint, model_type: str, max_new_tokens: int = 8, adapters: bool = False):
        self.processor = AutoProcessor.from_pretrained(checkpoint)
        self.renderer: Renderer = renderer_of(self.processor, checkpoint)
        loaded = lively_model(checkpoint)
        config = run_config(**{"tune_mm_llm": True, "lora.llm": adapters})
        self.model = arrange(loaded, config, FAMILIES[model_type], self.processor).eval()
        self.answers = AnswerGenerator(self.model, self.renderer.family, self.processor.tokenizer, max_new_tokens)

    def __call__(self, *rows: dict) -> list[Answer]:
        samples = [sample_of(row) for row in rows]
        return self.answers(request_row(samples, self.renderer, self.processor.tokenizer))


def lively_model(checkpoint) -> torch.nn.Module:
    """A model whose answers depend on every token, since those of a new tiny model repeat the last one."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


def answer_of(model, inputs: dict[str, torch.Tensor], tokenizer, max_new_tokens: int) -> str:
    """The answer of transformers to one prompt."""
    ids = inputs["input_ids"]
    config = model.config
    kinds = (ids == config.image_token_id).long() + 2 * (ids == config.video_token_id).long()
    greedy = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": max_new_tokens}
    produced = model.generate(**inputs, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, **greedy)
    return tokenizer.decode(produced[0, ids.shape[1] :]).removesuffix("<|endoftext|>").removesuffix("<|im_end|>")


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
def test_a_question_with_pictures_is_answered_as_the_published_model_does(model_type, adapters, checkpoints, pictures):
    """Up to the limit, whatever the expected answer is."""
    path = checkpoints[model_type]
    generate = Generator(path, model_type, 72, adapters)
    question = ("user", [pictures[1], "and", pictures[3], "What?"])
    asked = conversation(question, ("assistant", ["Red."]))
    much_expected = conversation(question, ("assistant", ["Red and blue. " * 20]))
    (given,), (other,) = generate(asked), generate(much_expected)
    layout = generate.renderer.layout(sample_of(asked))
    images = [Image.open(pictures[index]) for index in (1, 3)]
    inputs = dict(generate.processor.image_processor(images, return_tensors="pt"))
    inputs["input_ids"] = torch.from_numpy(layout.input_ids[: (layout.labels != -100).argmax()])[None]
    theirs = lively_model(path)
    assert given.text == other.text == answer_of(theirs, inputs, generate.processor.tokenizer, 72) != ""


def test_a_batch_has_the_answers_of_each_question_alone(model_type, checkpoints, pictures, tmp_path):
    """With pictures of different sizes, a clip, text alone and several turns, against transformers one by one."""
    path = checkpoints[model_type]
    generate = Generator(path, model_type, 24)
    clip = write_video(tmp_path / "clip.mp4", frames=8, size=(64, 48))
    red = ("assistant", ["Red."])
    rows = [
        conversation(("user", [pictures[1], "and", pictures[3], "What?"]), red),
        conversation(("user", ["Say something."]), red, ("user", [pictures[2], "And this?"]), red),
        conversation(("user", [clip, "What happens?"]), red),
        conversation(("user", ["A long question. " * 12]), red),
        conversation(("user", [pictures[0], "What?"]), red),
    ]
    theirs = lively_model(path)
    expected = []
    for sample in map(sample_of, rows):
        rendered = generate.renderer.render(sample)
        learned = rendered.layout.labels != -100
        for start in np.flatnonzero(learned[1:] & ~learned[:-1]) + 1:
            inputs = media_inputs(rendered, generate.renderer, generate.processor, torch.device("cpu"), start)
            inputs["input_ids"] = torch.from_numpy(rendered.layout.input_ids[:start])[None]
            expected.append(answer_of(theirs, inputs, generate.processor.tokenizer, 24))
    assert [one.text for one in generate(*rows)] == expected
    assert len(set(expected)) == len(expected) == 6


def test_answers_that_end_leave_the_batch(checkpoints, monkeypatch):
    """The others go on as before, and an answer that the limit cuts has not ended."""
    checkpoint = checkpoints["qwen2_5_vl"]
    generate = Generator(checkpoint, "qwen2_5_vl")
    words = ("What", "Which colour", "Why", "A long question, that is")
    samples = [sample_of(conversation(("user", [f"{word}?"]), ("assistant", ["Red."]))) for word in words]
    row = request_row(samples, generate.renderer, generate.processor.tokenizer)
    whole = [one.tokens for one in decode(generate.model, row.batch, row.prompts, 40)]
    assert [len(one) for one in whole] == [40] * 4
    ends = [whole[0][5], whole[1][0]]
    monkeypatch.setattr(generate.model.generation_config, "eos_token_id", ends)
    sizes: list[int] = []
    generate.model.register_forward_pre_hook(
        lambda _, __, given: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    cut = decode(generate.model, row.batch, row.prompts, 30)
    lengths = [next((place for place, token in enumerate(one) if token in ends), 30) for one in whole]
    assert [one.tokens for one in cut] == [one[:length] for one, length in zip(whole, lengths, strict=True)]
    assert [one.ended for one in cut] == [length < 30 for length in lengths]
    # A pass over the packed row gives the first tokens. Each further pass has the answers that have not ended before.
    going_on = [sum(length >= place for length in lengths) for place in range(1, 30)]
    assert sizes == [1, *filter(None, going_on)]
    assert lengths[1] == 0
    assert len(set(lengths)) > 2


def test_every_trained_turn_is_answered_from_what_comes_before_it(checkpoints, pictures):
    generate = Generator(checkpoints["qwen2_5_vl"], "qwen2_5_vl")
    first = [("user", [pictures[1], "What?"]), ("assistant", ["Red."])]
    second = [("user", ["Sure?"]), ("assistant", ["Yes."])]
    third = [("user", [pictures[2], "And this?"]), ("assistant", ["Blue."])]
    row = conversation(*first, *second, *third)
    row["messages"][3]["train"] = False
    answers = generate(row)
    asked = [(one.request.turn, one.request.text, one.request.expected) for one in answers]
    assert asked == [(1, "What?", "Red."), (2, "And this?", "Blue.")]
    (alone,) = generate(conversation(*first))
    assert answers[0].text == alone.text
    rest = conversation(*first, *second, *third)
    for index in (1, 3):
        rest["messages"][index]["train"] = False
    (last,) = generate(rest)
    assert answers[1].text == last.text


def test_a_row_that_cannot_be_decoded_leaves_the_others(checkpoints, pictures, tmp_path):
    generate = Generator(checkpoints["qwen2_vl"], "qwen2_vl")
    rows = [
        conversation(("user", [path, "What?"]), ("assistant", ["Red."])) for path in (pictures[0], tmp_path / "no.png")
    ]
    samples = [sample_of(row) for row in rows]
    row = request_row(samples, generate.renderer, generate.processor.tokenizer)
    (problem,) = row.problems
    assert "no.png" in problem.reason
    assert [one.request.sample for one in generate.answers(row)] == samples[:1]
    nothing = request_row(samples[1:], generate.renderer, generate.processor.tokenizer)
    assert generate.answers(nothing) == []


@pytest.mark.parametrize(
    ("model_type", "name"), [("qwen2_vl", "<|object_ref_start|>dog<|object_ref_end|>"), ("qwen3_vl", "dog")]
)
def test_names_and_boxes_are_in_question_and_answer(model_type, name, checkpoints, pictures):
    """In the notation of the family, and the boxes in pixels of the original picture."""
    row = {
        "messages": [
            {"role": "user", "content": "<image>Find <ref-object>."},
            {"role": "assistant", "content": "At <bbox>."},
        ],
        "images": [str(pictures[3])],
        "objects": {"ref": ["dog"], "bbox": [[20, 12, 100, 60]]},
    }
    (answer,) = Generator(checkpoints[model_type], model_type, 1)(row)
    assert answer.request.text == f"Find {name}."
    assert answer.request.expected.startswith("At ")
    (box,) = answer.expected_regions
    assert box.coordinates == pytest.approx((20, 12, 100, 60), abs=1)


def test_the_beginning_of_thoughts_is_part_of_an_answer_and_their_boxes_are_not(pictures):
    """So that an answer that was cut amid its thoughts is told from one without thoughts."""
    renderer, tokenizer = published("qwen3_6").renderer, published("qwen3_6").processor.tokenizer
    box = '{"bbox_2d": [%s, 2, 300, 400], "label": "a"}'
    answers = [f"<think>\n{box % 1}?\n</think>\n\n{box % 3}", box % 3]
    samples = [sample_of(conversation(("user", [pictures[0], "A?"]), ("assistant", [answer]))) for answer in answers]
    row = request_row(samples, renderer, tokenizer)
    assert [request.expected for request in row.requests] == answers
    assert [request.thoughts for request in row.requests] == ["<think>\n", ""]
    thoughtful, plain = (request.regions(request.expected, renderer.family) for request in row.requests)
    assert thoughtful == plain != ()
    assert row.requests[0].regions(f"<think>\n{box % 1}", renderer.family) == ()


@pytest.mark.parametrize(("targets", "step"), [([[200, 0, 380, 60]], 1), ([[0, 0, 20, 60]], 0), ("the menu", 0)])
def test_the_boxes_of_an_action_come_from_its_row(targets, step, checkpoints, tmp_path):
    """From the raw row over predictions.jsonl to the score. 750 of 1,000 is pixel 300 of 400, far from 500. A column of
    this name with other content says nothing."""
    Image.new("RGB", (400, 60), "red").save(tmp_path / "screen.png")
    expected = (
        '<tool_call>\n{"name": "mobile_use", "arguments": {"action": "click", "coordinate": [500, 500]}}\n</tool_call>'
    )
    row = conversation(("user", [tmp_path / "screen.png", "Open the menu."]), ("assistant", [expected]))
    row["targets"] = targets
    row["episode"] = {"id": "7", "steps": 4}
    (answer,) = Generator(checkpoints["qwen3_vl"], "qwen3_vl", 1)(row)
    stored = json.loads(json.dumps(row_of(replace(answer, text=expected.replace("[500, 500]", "[750, 500]")))))
    metric = load_metric("agent_action")
    assert stored["episode"] == row["episode"]
    stored |= {"entry": "a", "index": 0}
    (scored,) = score([stored], {"a": Chosen(("m",), "")}, {"m": metric}, FAMILIES["qwen3_vl"])
    assert scored.plain()["m"] == {"step": step, "type": 1, "point": step}
