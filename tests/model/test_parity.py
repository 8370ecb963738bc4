"""Tokens, labels, positions, pixels and loss equal those of Hugging Face's processor and model, for every family.

The conversation is rendered with the published chat templates, which TRL contains.
"""

import json
import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import trl
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from qwenvl_train.data.batches.collate import collate
from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize
from qwenvl_train.data.render.layout import IGNORED
from qwenvl_train.data.render.renderer import Rendered, Renderer
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.forward import use_packed_forward
from qwenvl_train.model.pixels import Pixels
from tests.conftest import FAMILIES as ALL_FAMILIES
from tests.conftest import by_pairs, conversation, in_rotation, sample_of
from tests.loading import as_theirs_and_ours, renderer_of


@pytest.fixture(params=ALL_FAMILIES)
def model_type(request) -> str:
    return request.param


PUBLISHED = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = {
    "qwen2_vl": "qwen2_5_vl.jinja",
    "qwen2_5_vl": "qwen2_5_vl.jinja",
    "qwen3_vl": "qwen3_vl.jinja",
    "qwen3_vl_moe": "qwen3_vl.jinja",
    "qwen3_5": "qwen3_5_nothink.jinja",
    "qwen3_5_moe": "qwen3_5_nothink.jinja",
}
TOOL = {"type": "function", "function": {"name": "zoom", "description": "Näher", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> tuple[Path, Path]:
    """A short video with fewer time steps than its height and width, and one with more."""
    folder = tmp_path_factory.mktemp("clips")
    short = write_video(folder / "short.mp4", frames=4, fps=4, size=(128, 96))
    long = write_video(folder / "long.mp4", frames=50, fps=5, size=(96, 64))
    return short, long


def write_video(path: Path, frames: int, fps: int, size: tuple[int, int]) -> Path:
    """Write a video of moving noise, so that all frames differ."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0] + frames, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(frames):
            picture = np.ascontiguousarray(noise[:, index : index + size[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def cases(pictures: list[Path], clips: tuple[Path, Path]) -> dict[str, dict]:
    a, b, c, d = pictures
    short, _ = clips
    boxes = conversation(("user", [a, b, "Where is the cat?"]), ("assistant", ["x"]))
    boxes["messages"][1]["content"] = [
        {"type": "text", "text": "Here: "},
        {
            "type": "objects",
            "image": 1,
            "objects": [
                {"bbox_2d": [13, 6.1, 65, 30.5], "label": "cat"},
                {"point_2d": [130, 61], "label": 'a "corner"'},
            ],
        },
    ]
    tools = conversation(
        ("user", [a, "Look closer."]), ("assistant", [""]), ("tool", ["Done."]), ("assistant", ["Red."])
    )
    tools["messages"][1] = {"role": "assistant", "content": "I zoom.", "tool_calls": [CALL, CALL]}
    tools["messages"].insert(3, {"role": "tool", "content": "Twice."})
    tools["tools"] = [TOOL]
    return {
        "text": conversation(("user", ["Which bird is this? 🐦 鸟"]), ("assistant", ["A wren."])),
        "one picture": conversation(("user", [a, "What is it?"]), ("assistant", ["A red circle."])),
        "three pictures": conversation(
            ("user", ["First", b, "then", c, d, "what?"]), ("assistant", ["Noise.\n\nAll."])
        ),
        "system and two turns": conversation(
            ("system", ["Be brief."]),
            ("user", [d, "What is it?"]),
            ("assistant", ["Noise."]),
            ("user", ["\nSure? ", c]),
            ("assistant", ["Yes.\n"]),
        ),
        "video": conversation(("user", [short, "What moves?"]), ("assistant", ["Nothing."])),
        "picture and videos": conversation(
            ("user", [short, "What moves?", b, short]),
            ("assistant", ["Nothing."]),
            ("user", [a]),
            ("assistant", ["A."]),
        ),
        "boxes": boxes,
        "tools": tools,
    }


CALL = {"type": "function", "function": {"name": "zoom", "arguments": {"box": [1, 2], "why": "zu klein, größer"}}}
CASES = (
    "text",
    "one picture",
    "three pictures",
    "system and two turns",
    "video",
    "picture and videos",
    "boxes",
    "tools",
)


@pytest.fixture(scope="module")
def loaded(checkpoints):
    """For each family: the processor, a model as transformers runs it, and a model that runs packed."""
    cache = {}

    def load(model_type):
        if model_type not in cache:
            path = checkpoints[model_type]
            processor = AutoProcessor.from_pretrained(path)
            theirs, ours = (
                AutoModelForImageTextToText.from_pretrained(
                    path, dtype=torch.float32, attn_implementation="sdpa"
                ).eval()
                for _ in range(2)
            )
            use_packed_forward(ours, processor.image_processor)
            use_packed_attention(ours)
            cache[model_type] = (processor, theirs, ours, renderer_of(processor, path))
        return cache[model_type]

    return load


def reference(processor, model_type: str, row: dict, renderer: Renderer, **template) -> dict:
    """Return the result of transformers for the same conversation, from its own template, decoded images and decoded
    frames."""
    parts = [part for message in row["messages"] if isinstance(message["content"], list) for part in message["content"]]
    images = [Image.open(part["image"]) for part in parts if part["type"] == "image"]
    paths = [part["video"] for part in parts if part["type"] == "video"]
    videos = [decoded(path, size) for path, size in zip(paths, renderer.layout(sample_of(row)).clips, strict=True)]
    media = {"images": images or None}
    if videos:
        media["videos"] = [frames for frames, _ in videos]
        metadata = [metadata for _, metadata in videos]
        media["videos_kwargs"] = {"video_metadata": metadata, "do_sample_frames": False}
    said = row["messages"][:-1] if template.get("add_generation_prompt") else row["messages"]
    text = written(processor, model_type, row | {"messages": said}, images, **template)
    if model_type.startswith("qwen3"):
        # transformers 5.x keeps the template's outer pair of tokens around all frames of a video. The processor that
        # was published with the models replaced it by the frames, each with its own pair, and so does vLLM (its issue
        # 46817).
        text = text.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    return processor(text=[text], **media, return_tensors="pt")


def written(processor, model_type: str, row: dict, images: list[Image.Image], **template) -> str:
    messages = [dict(message) for message in row["messages"]]
    for message in messages:
        if isinstance(message["content"], list):
            message["content"] = [
                {"type": "text", "text": listed(processor, model_type, part, images)}
                if part["type"] == "objects"
                else part
                for part in message["content"]
            ]
    if "tools" in row and model_type.startswith("qwen2"):
        # The older vision templates do not support tools. The template of the same generation's language models does.
        mark = "<|vision_start|><|image_pad|><|vision_end|>"
        for message in messages:
            if isinstance(message["content"], list):
                message["content"] = "".join(part.get("text", mark) for part in message["content"])
        messages.insert(0, {"role": "system", "content": "You are a helpful assistant."})
        published = (PUBLISHED / "qwen2_5.jinja").read_text()
    else:
        published = (PUBLISHED / TEMPLATES[model_type]).read_text()
    return processor.tokenizer.apply_chat_template(
        messages, tools=row.get("tools"), tokenize=False, chat_template=published, **template
    )


def listed(processor, model_type: str, part: dict, images: list[Image.Image]) -> str:
    """Return a list of boxes as the published models write it."""
    image = images[part["image"]]
    _, rows, columns = processor.image_processor(image, return_tensors="pt")["image_grid_thw"][0].tolist()
    patch = processor.image_processor.patch_size
    wide, high = (columns * patch, rows * patch) if model_type == "qwen2_5_vl" else (1000, 1000)
    lines = []
    for item in part["objects"]:
        key = "bbox_2d" if "bbox_2d" in item else "point_2d"
        numbers = [
            round(value / (image.height if place % 2 else image.width) * (high if place % 2 else wide))
            for place, value in enumerate(item[key])
        ]
        pairs = ",".join(f"({x},{y})" for x, y in zip(numbers[::2], numbers[1::2], strict=True))
        lines.append(
            f"<|object_ref_start|>{item['label']}<|object_ref_end|><|box_start|>{pairs}<|box_end|>"
            if model_type == "qwen2_vl"
            else f'\t{{"{key}": {numbers}, "label": {json.dumps(item["label"])}}}'
        )
    return "".join(lines) if model_type == "qwen2_vl" else "```json\n[\n" + ",\n".join(lines) + "\n]\n```"


def decoded(path: str, size) -> tuple[torch.Tensor, VideoMetadata]:
    """Decode every frame in order, and return the chosen ones."""
    with av.open(path) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    metadata = VideoMetadata(
        total_num_frames=len(frames),
        fps=size.file_fps,
        frames_indices=list(size.frames),
        width=frames[0].shape[1],
        height=frames[0].shape[0],
    )
    return torch.stack([frames[index] for index in size.frames]).permute(0, 3, 1, 2), metadata


@pytest.mark.parametrize("case", CASES)
def test_ids_labels_pixels_and_positions_equal_the_processor_and_model(model_type, case, loaded, pictures, clips):
    processor, theirs, _, ours = loaded(model_type)
    row = cases(pictures, clips)[case]
    rendered = ours.render(sample_of(row))
    expected = reference(processor, model_type, row, ours)
    check(rendered, expected, processor)
    assert_positions(rendered, expected, theirs)
    assert supervised(rendered.layout, processor.tokenizer) == supervised_by_prompt(processor, model_type, row)


@pytest.mark.parametrize(("model_type", "case"), in_rotation(CASES))
def test_a_question_ends_where_the_answer_begins(model_type, case, loaded, pictures, clips):
    processor, theirs, _, ours = loaded(model_type)
    row = cases(pictures, clips)[case]
    rendered = ours.render(sample_of(row).question)
    expected = reference(processor, model_type, row, ours, add_generation_prompt=True)
    check(rendered, expected, processor)
    assert_positions(rendered, expected, theirs)


def check(rendered: Rendered, expected: dict, processor) -> None:
    layout = rendered.layout
    assert layout.input_ids.tolist() == expected["input_ids"][0].tolist()
    assert [list(size.grid) for size in layout.pictures] == expected.get("image_grid_thw", torch.empty(0, 3)).tolist()
    assert [list(size.grid) for size in layout.clips] == expected.get("video_grid_thw", torch.empty(0, 3)).tolist()
    if rendered.planes is None:
        return
    pixels = Pixels(processor.image_processor)(
        torch.from_numpy(rendered.planes), torch.from_numpy(rendered.frame_pairs)
    )
    of_media = pixels.split([math.prod(size.grid) for size in layout.media])
    for kind, key in ((PictureSize, "pixel_values"), (ClipSize, "pixel_values_videos")):
        mine = [x for x, size in zip(of_media, layout.media, strict=True) if isinstance(size, kind)]
        assert bool(mine) == (key in expected)
        if mine:
            assert torch.equal(torch.cat(mine), expected[key])  # bit for bit


def assert_positions(rendered: Rendered, expected: dict, theirs) -> None:
    keys = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    positions, _ = theirs.model.get_rope_index(
        expected["input_ids"], expected["mm_token_type_ids"], **{key: expected[key] for key in keys if key in expected}
    )
    assert rendered.layout.position_ids[1:].tolist() == positions[:, 0].tolist()
    assert rendered.layout.position_ids[0].tolist() == list(range(rendered.layout.length))


def supervised(layout, tokenizer) -> list[str]:
    edges = np.flatnonzero(np.diff(np.r_[False, layout.labels != IGNORED, False]))
    assert (layout.labels[layout.labels != IGNORED] == layout.input_ids[layout.labels != IGNORED]).all()
    return [tokenizer.decode(layout.input_ids[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def supervised_by_prompt(processor, model_type: str, row: dict) -> list[str]:
    """Return the text that each answer adds to its prefix of the conversation, after the generation prompt."""
    images = [
        Image.open(part["image"])
        for message in row["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image"
    ]
    spans = []
    for index, message in enumerate(row["messages"]):
        if message["role"] == "assistant":
            before, after = (row | {"messages": row["messages"][:end]} for end in (index, index + 1))
            prompt = written(processor, model_type, before, images, add_generation_prompt=True)
            answered = written(processor, model_type, after, images)
            assert answered.startswith(prompt)
            spans.append(answered.removeprefix(prompt).removesuffix("\n"))
    return spans


@pytest.mark.parametrize("case", ["three pictures", "picture and videos"])
def test_numbered_media_equal_the_template(model_type, case, loaded, pictures, clips, checkpoints):
    processor, *_ = loaded(model_type)
    row = cases(pictures, clips)[case]
    numbering = renderer_of(processor, checkpoints[model_type], vision_ids=True)
    check(
        numbering.render(sample_of(row)),
        reference(processor, model_type, row, numbering, add_vision_id=True),
        processor,
    )


def test_text_after_a_long_clip_goes_on_above_its_last_moment(model_type, loaded, clips):
    """transformers 5.23 continues above the video's height and width only. The published model code and its own code
    for generation also count the time (its pull request 35569)."""
    processor, theirs, _, ours = loaded(model_type)
    row = conversation(("user", [clips[1], "What?"]), ("assistant", ["That."]))
    rendered = ours.render(sample_of(row))
    expected = reference(processor, model_type, row, ours)
    check(rendered, expected, processor)
    if model_type.startswith("qwen3"):
        assert_positions(rendered, expected, theirs)
        return
    positions, delta = theirs.model.get_rope_index(
        expected["input_ids"],
        expected["mm_token_type_ids"],
        video_grid_thw=expected["video_grid_thw"],
        **({"second_per_grid_ts": expected["second_per_grid_ts"]} if "second_per_grid_ts" in expected else {}),
    )
    mine = rendered.layout.position_ids[1:]
    last = np.flatnonzero(rendered.layout.input_ids == ours.video_pad)[-1]
    assert mine[:, : last + 1].tolist() == positions[:, 0, : last + 1].tolist()
    assert mine[0, last] > mine[1, last]
    after = np.arange(1, rendered.layout.length - last)
    assert (mine[:, last + 1 :] == mine[0, last] + after).all()
    assert delta.item() == positions.max() + 1 - rendered.layout.length


@pytest.mark.parametrize(("model_type", "case"), in_rotation(CASES))
def test_loss_equals_the_model(model_type, case, loaded, pictures, clips):
    processor, theirs, ours, render = loaded(model_type)
    row = cases(pictures, clips)[case]
    batch = collate([render.render(sample_of(row))], render)
    expected = theirs(**reference(processor, model_type, row, render), labels=batch["labels"])
    scores = ours(**batch)
    worst = abs(-scores.log_probs.mean().item() - expected.loss.item()) / expected.loss.item()
    # Measured worst case over families and cases: 2.3e-7, from summing over parts of the vocabulary
    assert worst < 1e-6
    logits = expected.logits[0, batch["learned"] - 1]
    assert torch.equal(scores.is_top1, logits.argmax(-1) == batch["labels"][0, batch["learned"]])
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(scores.entropy, entropy, atol=1e-5)


@pytest.mark.parametrize(("model_type", "trained"), by_pairs("full", "lora"))
def test_packed_equals_one_by_one_in_loss_and_every_gradient(model_type, trained, loaded, pictures, clips, checkpoints):
    processor, theirs, ours, render = loaded(model_type)
    rows = list(cases(pictures, clips).values())
    rendered = [render.render(sample_of(row)) for row in rows]
    if trained == "lora":
        theirs, ours = as_theirs_and_ours(model_type, checkpoints[model_type], processor, adapters=True)
    theirs.zero_grad()
    ours.zero_grad()
    total = 0.0
    for row, item in zip(rows, rendered, strict=True):
        logits = theirs(**reference(processor, model_type, row, render)).logits
        loss = torch.nn.functional.cross_entropy(
            logits[0, :-1], torch.from_numpy(item.layout.labels)[1:], ignore_index=IGNORED, reduction="sum"
        )
        loss.backward()
        total += loss.item()
    packed = -ours(**collate(rendered, render)).log_probs.sum()
    packed.backward()
    # Measured worst case over families: 6.5e-8
    assert abs(packed.item() - total) / total < 1e-6
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None
            continue
        theirs_grad = expected[name].grad
        assert parameter.grad is not None, name
        if theirs_grad is None:
            theirs_grad = torch.zeros_like(parameter)
        scale = theirs_grad.abs().max().clamp(min=1e-6)
        worst = ((parameter.grad - theirs_grad).abs().max() / scale).item()
        # Measured worst case over families and parameters: 9.5e-7 of the parameter's largest gradient
        assert worst < 1e-5, f"{name}: {worst}"
