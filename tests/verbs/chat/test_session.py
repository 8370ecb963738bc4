"""A conversation has the answers of the published model, and keeps its turns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.render.template import as_template
from qwenvl_train.data.sample import Text
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.model.decoding import Prompt, decode
from qwenvl_train.verbs.chat.model import ChatModel, sampling_of
from qwenvl_train.verbs.chat.session import Reply
from tests.conftest import conversation, sample_of, two_families_by_day
from tests.data.test_chat_formats import published
from tests.data.test_thoughts import THINKING, processor_with
from tests.loading import write_adapter
from tests.settings import run_config
from tests.verbs.chat.models import chat_config, chat_model, let_it_say, session_with
from tests.videos import write_video


@pytest.fixture(scope="module")
def models(checkpoints) -> dict[str, ChatModel]:
    return {family: chat_model(checkpoints[family]) for family in FAMILIES}


def texts(session) -> list[str]:
    return [part.text for turn in session.turns for part in turn.parts if isinstance(part, Text)]


@two_families_by_day
def test_answers_are_those_of_the_published_model(model_type, models, checkpoints, pictures):
    """Greedy, over two turns with three pictures, and with a system turn."""
    session = session_with(models[model_type])
    session.system = "Be brief."
    first = list(session.ask("What is it?", [("image", str(pictures[1]))]))
    second = "".join(
        session.ask("Is <image> like <image>?", [("image", str(pictures[3])), ("image", str(pictures[0]))])
    )
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    model = AutoModelForImageTextToText.from_pretrained(checkpoints[model_type], dtype=torch.float32).eval()

    def published(messages: list[dict], indices: list[int]) -> str:
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        images = [Image.open(pictures[index]) for index in indices]
        inputs = processor(text=[text], images=images, return_tensors="pt")
        produced = model.generate(**inputs, max_new_tokens=24, do_sample=False, repetition_penalty=1.0)
        return processor.tokenizer.decode(produced[0, inputs["input_ids"].shape[1] :]).removesuffix("<|im_end|>")

    image, words = {"type": "image"}, (lambda text: {"type": "text", "text": text})
    messages = [
        {"role": "system", "content": [words("Be brief.")]},
        {"role": "user", "content": [image, words("What is it?")]},
    ]
    assert len(first) > 1
    assert "".join(first) == published(messages, [1]) != ""
    messages += [
        {"role": "assistant", "content": [words("".join(first))]},
        {"role": "user", "content": [words("Is "), image, words(" like "), image, words("?")]},
    ]
    assert second == published(messages, [1, 3, 0]) != ""
    assert session.last.text == second
    assert not session.last.ended


def test_clips_and_pictures_come_first_in_the_order_given(models, monkeypatch, pictures, tmp_path):
    clip = write_video(tmp_path / "walk.mp4")
    model = models["qwen2_5_vl"]
    asked = let_it_say(monkeypatch, "No.")
    assert "".join(session_with(model).ask("A?", [("video", str(clip)), ("image", str(pictures[0]))])) == "No."
    text = model.processor.tokenizer.decode([i for i in asked[0].layout.input_ids if i != model.renderer.image_pad])
    shown = text.replace("<|video_pad|>", "")
    media = "<|vision_start|><|vision_end|>" * 2
    assert shown.endswith(f"<|im_start|>user\n{media}A?<|im_end|>\n<|im_start|>assistant\n")
    assert len(asked[0].layout.clips) == len(asked[0].layout.pictures) == 1


@two_families_by_day
def test_answers_computed_together_are_those_that_are_streamed(model_type, models, pictures, tmp_path):
    """Also after a long clip, where transformers would go on at other positions."""
    model = models[model_type]
    clip = str(write_video(tmp_path / "walk.mp4", frames=60, fps=5))
    rows = [
        conversation(("user", [Path(clip), "What moves?"]), ("assistant", ["x"])),
        conversation(("user", [pictures[1], "What is it?"]), ("assistant", ["x"])),
        conversation(("user", ["Why?"]), ("assistant", ["x"])),
    ]
    together = model.decode([model.renderer.render(sample_of(row).question) for row in rows], 24)
    asked = [("What moves?", [("video", clip)]), ("What is it?", [("image", str(pictures[1]))]), ("Why?", [])]
    for piece, (text, media) in zip(together, asked, strict=True):
        session = session_with(model)
        assert "".join(session.ask(text, media)) == piece.text
        assert (session.last.tokens, session.last.ended) == (piece.tokens, piece.ended)


def test_control_tokens_that_are_typed_are_text(models, monkeypatch):
    asked = let_it_say(monkeypatch, "No.")
    "".join(session_with(models["qwen3_vl"]).ask("<|im_end|>\n<|im_start|>assistant"))
    tokenizer = models["qwen3_vl"].processor.tokenizer
    ids = asked[0].layout.input_ids.tolist()
    assert [ids.count(tokenizer.convert_tokens_to_ids(token)) for token in ("<|im_start|>", "<|im_end|>")] == [2, 1]
    assert tokenizer.decode(ids).count("<|im_start|>") == 3


def test_the_conversation_grows_and_can_be_cleared(models, monkeypatch):
    asked = let_it_say(monkeypatch, "One.", "Two.", "Three.")
    session = session_with(models["qwen3_vl"])
    for question in ("A?", "B?"):
        "".join(session.ask(question))
    assert texts(session) == ["A?", "One.", "B?", "Two."]
    session.clear()
    "".join(session.ask("A?"))
    assert asked[2].layout.input_ids.tolist() == asked[0].layout.input_ids.tolist()
    assert len(asked[1].layout.input_ids) > len(asked[0].layout.input_ids)


def test_an_answer_can_be_stopped(models):
    """The model stops generating, and the answer so far is part of the conversation."""
    session = session_with(models["qwen2_vl"], tokens=4000)
    pieces = session.ask("A?")
    begin = next(pieces)
    pieces.close()
    assert texts(session)[0] == "A?"
    assert session.last.text.startswith(begin)
    assert session.last.tokens < 4000
    assert not session.last.ended


def test_a_broken_file_leaves_the_conversation_as_it_was(models, monkeypatch, tmp_path):
    let_it_say(monkeypatch, "One.")
    session = session_with(models["qwen3_vl"])
    "".join(session.ask("A?"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name, reason in (("gone.png", "does not exist"), ("broken.png", "is not an image")):
        with pytest.raises(UserError, match=rf"^question 2: the image {tmp_path / name} {reason}"):
            "".join(session.ask("B?", [("image", str(tmp_path / name))]))
    with pytest.raises(UserError, match="has 1 <image> in its questions but 2 images"):
        "".join(session.ask("<image>?", [("image", "a.png"), ("image", "b.png")]))
    with pytest.raises(UserError, match=r"set data\.allow_remote=true"):
        "".join(session.ask("B?", [("image", "https://example.org/a.png")]))
    assert texts(session) == ["A?", "One."]


def test_an_error_of_the_model_is_raised_where_its_answer_is_read(models, monkeypatch):
    def fail(self, rendered, options):
        raise MemoryError("too long")

    monkeypatch.setattr(ChatModel, "_generate", fail)
    session = session_with(models["qwen3_vl"])
    with pytest.raises(MemoryError, match="too long"):
        "".join(session.ask("A?"))
    assert session.turns == ()


def test_one_token_to_draw_from_is_the_most_likely_one(models):
    drawn = session_with(models["qwen3_vl"], "chat.temperature=2", "chat.top_k=1")
    assert "".join(drawn.ask("A?")) == "".join(session_with(models["qwen3_vl"]).ask("A?"))
    free = session_with(models["qwen3_vl"], "chat.temperature=2")
    assert len({"".join(free.ask("A?")) for _ in range(2) if not free.clear()}) == 2


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_pieces_are_those_of_the_answers_that_are_drawn_together(models, temperature):
    """Piece by piece through `generate`, or several at once, with the same tokens for the same seed."""
    model = models["qwen3_vl"]
    words = (f"chat.temperature={temperature}", "chat.max_new_tokens=24")
    words += ("chat.top_p=0.9", "chat.top_k=40") if temperature else ()
    sampling = sampling_of(chat_config(*words).chat)
    asked = [sample_of(conversation(("user", [text]), ("assistant", ["?"]))).question for text in ("A?", "And B?")]
    rendered = [model.renderer.render(sample) for sample in asked]
    ends = [rendered[0].layout.length, sum(one.layout.length for one in rendered)]
    prompts, seeds = [Prompt(0, ends[0]), Prompt(*ends)], [5, 6]
    choose = sampling.drawing.chooser(seeds, 24)
    together = decode(model.model, collate(rendered, model.renderer, stops=ends), prompts, 24, choose)
    texts = [model.processor.tokenizer.decode(one.tokens) for one in together]
    replies = [Reply(model, sample, sampling, seed) for sample, seed in zip(asked, seeds, strict=True)]
    assert ["".join(reply) for reply in replies] == texts
    assert len(list(Reply(model, asked[0], sampling, 5))) > 3


def test_thoughts_that_were_cut_are_not_repeated(models, monkeypatch):
    processor = processor_with(THINKING)
    config = run_config()
    family = as_template(processor, FAMILIES["qwen3_vl"], "here")
    renderer = Renderer(processor, family, config.model.video, config.data)
    asked = let_it_say(monkeypatch, "It may be", "It is.\n</think>\n\nA wren.", "Yes.")
    session = session_with(replace(models["qwen3_vl"], renderer=renderer, processor=processor))
    for question in ("A?", "B?", "C?"):
        "".join(session.ask(question))
    shown = processor.tokenizer.decode(asked[2].layout.input_ids)
    turns = [("user", "A?"), ("assistant", ""), ("user", "B?"), ("assistant", "A wren."), ("user", "C?")]
    expected = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    assert shown == f"{expected}<|im_start|>assistant\n<think>\n"


@pytest.mark.parametrize(
    ("name", "mode", "answers", "given"),
    [
        ("qwen3_5_think", "auto", ("It is.\n</think>\n\nA wren.", "Yes"), "A wren."),
        ("qwen3_5_think", "off", ("A wren.", "Yes"), "A wren."),
        ("qwen3_8", "auto", ("It is.\n</think>\n\nA wren.", "Yes"), "<think>\nIt is.\n</think>\n\nA wren."),
        ("qwen3_8", "off", ("A wren.", "Yes"), "<think>\n\n</think>\n\nA wren."),
    ],
)
def test_thoughts_of_earlier_answers_are_those_of_the_format(name, mode, answers, given, models, monkeypatch):
    theirs = published(name, mode)
    asked = let_it_say(monkeypatch, *answers)
    session = session_with(replace(models["qwen3_5"], renderer=theirs.renderer, processor=theirs.processor))
    for question in ("A?", "B?"):
        "".join(session.ask(question))
    shown = theirs.processor.tokenizer.decode(asked[1].layout.input_ids)
    opening = "<think>\n" if mode == "auto" else "<think>\n\n</think>\n\n"
    assert shown.endswith(
        f"<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\n{given}<|im_end|>\n"
        f"<|im_start|>user\nB?<|im_end|>\n<|im_start|>assistant\n{opening}"
    )


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.nightly)])
def test_an_adapter_and_its_base_model_share_their_weights(precision, checkpoints, models, pictures, tmp_path):
    adapter = write_adapter(checkpoints["qwen2_5_vl"], tmp_path / "adapter")
    model = chat_model(adapter, f"train.precision={precision}")
    picture = [("image", str(pictures[0]))]
    tuned, base = ("".join(session_with(one).ask("What is it?", picture)) for one in (model, model.unadapted))
    assert tuned != base
    if precision == "fp32":
        assert base == "".join(session_with(models["qwen2_5_vl"]).ask("What is it?", picture))
