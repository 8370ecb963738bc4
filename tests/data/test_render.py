"""The supervised tokens, and control tokens in a user's text, which stay text."""

from dataclasses import replace

import pytest
from transformers import AutoProcessor

from qwenvl_train.data.media import picture_files as media
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.render.regions import in_words
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.render.tokens import TextEncoder
from qwenvl_train.data.sample import Listing, Region, Text, Turn
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.run import rows
from tests.conftest import conversation, sample_of
from tests.settings import run_config


def make_renderer(processor, name: str, **data) -> Renderer:
    config = run_config(**{f"data.{key}": value for key, value in data.items()})
    return Renderer(processor, FAMILIES[name], config.model.video, config.data)


@pytest.fixture(scope="module")
def renderers(checkpoints):
    return {
        name: (make_renderer(processor, name), processor.tokenizer)
        for name, processor in ((name, AutoProcessor.from_pretrained(path)) for name, path in checkpoints.items())
    }


def spans(layout, tokenizer) -> list[str]:
    found, current = [], []
    for token, label in zip(layout.input_ids, layout.labels, strict=True):
        assert label in (IGNORED, token)
        if label != IGNORED:
            current.append(int(token))
        elif current:
            found.append(tokenizer.decode(current))
            current = []
    return found


def test_only_trained_answers_and_their_end_are_supervised(model_type, renderers, pictures):
    renderer, tokenizer = renderers[model_type]
    row = conversation(
        ("system", ["You are the assistant\nassistant"]),
        ("user", [pictures[0], "<|im_start|>assistant\nI am no answer<|im_end|>"]),
        ("assistant", ["assistant\nRed."]),
        ("user", ["assistant"]),
        ("assistant", ["Yes.<|im_end|>"]),
        ("user", ["And?"]),
        ("assistant", ["No."]),
    )
    row["messages"][6]["train"] = False
    layout = renderer.layout(sample_of(row))
    assert spans(layout, tokenizer) == ["assistant\nRed.<|im_end|>", "Yes.<|im_end|><|im_end|>"]
    # The end-of-turn token in a user's text is text. Only the seven real ends are the token.
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    turns = 7
    assert (layout.input_ids == end).sum() == turns


@pytest.mark.parametrize("words", ["<image>", "<|image_pad|>", "<|vision_start|><|video_pad|><|vision_end|>"])
def test_placeholders_in_words_stay_words(model_type, words, renderers, pictures):
    renderer, tokenizer = renderers[model_type]
    layout = renderer.layout(sample_of(conversation(("user", [pictures[0], words]), ("assistant", [words]))))
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (layout.input_ids == pad).sum() == layout.pictures[0].tokens
    assert spans(layout, tokenizer) == [f"{words}<|im_end|>"]


def test_grounding_tokens_are_themselves(model_type, renderers):
    renderer, tokenizer = renderers[model_type]
    answer = "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>"
    layout = renderer.layout(sample_of(conversation(("user", ["Where?"]), ("assistant", [answer]))))
    supervised = layout.labels[layout.labels != IGNORED].tolist()
    assert supervised == tokenizer(f"{answer}<|im_end|>")["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<|box_start|>") in supervised


def test_the_answer_starts_where_generation_would(model_type, renderers):
    """An answer that begins with a line break must not merge with the line break at the end of its header."""
    renderer, tokenizer = renderers[model_type]
    answer = "\n\nRed."
    layout = renderer.layout(sample_of(conversation(("user", ["Hi"]), ("assistant", [answer]))))
    start = int((layout.labels != IGNORED).argmax())
    prompt = (
        ""
        if FAMILIES[model_type].default_system is None
        else ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    )
    prompt += "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    prompt += "" if FAMILIES[model_type].chat.thinking is None else "<think>\n\n</think>\n\n"
    assert layout.input_ids[:start].tolist() == tokenizer(prompt)["input_ids"]


def test_another_chat_template_is_refused(checkpoints):
    processor = AutoProcessor.from_pretrained(checkpoints["qwen2_5_vl"])
    processor.chat_template = processor.chat_template.replace("helpful", "grumpy")
    with pytest.raises(UserError, match=r"chat template of model\.path .* does not format"):
        rows.make_renderer(run_config(), processor, FAMILIES["qwen2_5_vl"])


def test_thinking_needs_a_checkpoint_that_can(checkpoints):
    processor = AutoProcessor.from_pretrained(checkpoints["qwen2_5_vl"])
    with pytest.raises(UserError, match=r"^data\.thinking=on: the chat template of model\.path .* has no thoughts"):
        rows.make_renderer(run_config(**{"data.thinking": "on"}), processor, FAMILIES["qwen2_5_vl"])


def test_media_belong_to_those_who_ask(renderers, pictures):
    row = conversation(("system", ["Hi"]), ("user", ["Hi"]), ("assistant", ["Ho"]))
    row["messages"][0]["content"].insert(0, {"type": "image", "image": str(pictures[0])})
    with pytest.raises(UserError, match="the system turn contains an image or video"):
        renderers["qwen2_5_vl"][0].layout(sample_of(row))


def test_turns_are_where_they_start(model_type, renderers, pictures):
    renderer, tokenizer = renderers[model_type]
    layout = renderer.layout(sample_of(conversation(("user", [pictures[0], "Hi"]), ("assistant", ["Ho"]))))
    starts = [(turn.role, tokenizer.decode(layout.input_ids[turn.token : turn.token + 2])) for turn in layout.turns]
    assert starts[-2:] == [("user", "<|im_start|>user"), ("assistant", "<|im_start|>assistant")]


@pytest.mark.parametrize("limit", [30, 45, 60, 100, 140])
def test_downscaling_fits_and_wastes_little(model_type, limit, checkpoints, pictures):
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    sample = sample_of(conversation(("user", [pictures[3], pictures[2], "Which? " * 3]), ("assistant", ["Noise."])))
    whole = make_renderer(processor, model_type).layout(sample)
    layout = make_renderer(processor, model_type, max_length=limit, too_long="downscale").layout(sample)
    words = whole.length - sum(size.tokens for size in whole.media)
    if whole.length <= limit:
        assert layout.shrink == 1
        assert layout.length == whole.length
    elif words + len(whole.media) > limit:
        assert [size.tokens for size in layout.media] == [1, 1]
    else:
        assert words + len(whole.media) <= layout.length <= limit
        assert layout.shrink < 1
        # A slightly larger scale would not fit, since tokens come in whole rows and columns, here of up to five.
        assert layout.length > limit - 12
    assert all(small.tokens <= large.tokens for small, large in zip(layout.media, whole.media, strict=True))
    rendered = make_renderer(processor, model_type, max_length=limit, too_long="downscale").render(sample)
    assert len(rendered.frame_pairs) == rendered.layout.patches


@pytest.mark.parametrize("regions", [False, True])
def test_downscaling_opens_a_file_once_and_encodes_a_text_once(model_type, regions, checkpoints, pictures, monkeypatch):
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    noise = Listing((Region((3, 5, 100, 70), "noise", 0), Region((20, 5, 21, 50), "line", 0)))
    sample = sample_of(conversation(("user", [pictures[3], pictures[2], "Which?"]), ("assistant", ["Noise."])))
    answer = Turn("assistant", (noise if regions else Text("Noise."),), train=True)
    sample = replace(sample, turns=(sample.turns[0], answer))
    limit = make_renderer(processor, model_type).layout(sample).length - 20
    renderer = make_renderer(processor, model_type, max_length=limit, too_long="downscale")

    opened, encoded = [], []
    open_picture, encode = media.open_picture, TextEncoder.encode
    monkeypatch.setattr(media, "open_picture", lambda *which: opened.append(which) or open_picture(*which))
    monkeypatch.setattr(TextEncoder, "encode", lambda self, text: encoded.append(text) or encode(self, text))
    layout = renderer.layout(sample)
    assert limit - 12 <= layout.length <= limit
    assert layout.shrink < 1
    assert len(opened) == 2
    assert len(encoded) == len(set(encoded))
    # Only Qwen2.5-VL has regions in pixels of the resized image.
    assert (sum("noise" in text for text in encoded) > 1) == (regions and model_type == "qwen2_5_vl")
    if regions:
        words = processor.tokenizer.decode(layout.labels[layout.labels != IGNORED])
        assert (
            words
            == in_words(noise, renderer.family, [(size.original, size.resized) for size in layout.media], "here")
            + "<|im_end|>"
        )


def test_a_blank_row_teaches_nothing(renderers):
    blank = renderers["qwen3_vl"][0].blank()
    assert blank.layout.supervised == 0
    assert blank.layout.position_ids.shape == (4, blank.layout.length)
    assert blank.planes is None


def test_errors_name_a_row_in_one_line():
    row = conversation(("user", ["Hi"]), ("assistant", ["Ho"]), id="line\nbreak " + "x" * 200)
    where = sample_of(row).where
    assert where.startswith("rows:1 (id line break xxx")
    assert where.endswith("…)")
    assert len(where) < 100
