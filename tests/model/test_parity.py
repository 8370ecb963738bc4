"""Against Hugging Face's own processor and model: tokens, labels, positions, pixels, loss; for every family."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.data.collate import collate
from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.render import IGNORED, Renderer
from qwenvl_train.families import FAMILIES
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.forward import Pixels, use_packed_forward
from tests.conftest import conversation


def cases(pictures: list[Path]) -> dict[str, dict]:
    a, b, c, d = pictures
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
    }


CASES = ("text", "one picture", "three pictures", "system and two turns")


@pytest.fixture(scope="module")
def loaded(checkpoints):
    """Per family: processor, a model as transformers runs it, and one that runs packed."""
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
            renderer = Renderer(processor, FAMILIES[model_type], "test")
            cache[model_type] = (processor, theirs, ours, renderer)
        return cache[model_type]

    return load


def reference(processor, row: dict) -> dict:
    """What transformers makes of the same conversation, from text and PIL pictures."""
    paths = [part["image"] for turn in row["messages"] for part in turn["content"] if part["type"] == "image"]
    text = processor.apply_chat_template(row["messages"], tokenize=False)
    images = [Image.open(path) for path in paths] or None
    return processor(text=[text], images=images, return_tensors="pt")


@pytest.mark.parametrize("case", CASES)
def test_ids_pixels_and_positions_equal_the_processor_and_model(model_type, case, loaded, pictures):
    processor, theirs, _, renderer = loaded(model_type)
    row = cases(pictures)[case]
    rendered = renderer.render(to_sample(row, "rows", 1, Path("/")))
    expected = reference(processor, row)

    assert rendered.layout.input_ids.tolist() == expected["input_ids"][0].tolist()
    if "pixel_values" in expected:
        pixels = Pixels(processor.image_processor)(torch.from_numpy(rendered.patches))
        assert torch.equal(pixels, expected["pixel_values"])  # bit for bit
        assert [list(size.grid) for size in rendered.layout.pictures] == expected["image_grid_thw"].tolist()
    positions, _ = theirs.model.get_rope_index(
        expected["input_ids"], expected["mm_token_type_ids"], image_grid_thw=expected.get("image_grid_thw")
    )
    assert rendered.layout.position_ids[1:].tolist() == positions[:, 0].tolist()
    assert rendered.layout.position_ids[0].tolist() == list(range(rendered.layout.length))


@pytest.mark.parametrize("case", CASES)
def test_loss_equals_the_model(model_type, case, loaded, pictures):
    processor, theirs, ours, renderer = loaded(model_type)
    row = cases(pictures)[case]
    batch = collate([renderer.render(to_sample(row, "rows", 1, Path("/")))])
    expected = theirs(**reference(processor, row), labels=batch["labels"]).loss
    logits = ours(**{key: value for key, value in batch.items() if key != "labels"}).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], batch["labels"][0, 1:], ignore_index=IGNORED)
    # Measured worst case over families and cases: 0.0
    assert abs(loss.item() - expected.item()) < 1e-6


def test_packed_equals_one_by_one_in_loss_and_every_gradient(model_type, loaded, pictures):
    processor, theirs, ours, renderer = loaded(model_type)
    rows = list(cases(pictures).values())
    rendered = [renderer.render(to_sample(row, "rows", 1, Path("/"))) for row in rows]
    theirs.zero_grad()
    ours.zero_grad()
    total = 0.0
    for row, item in zip(rows, rendered, strict=True):
        logits = theirs(**reference(processor, row)).logits
        loss = torch.nn.functional.cross_entropy(
            logits[0, :-1], torch.from_numpy(item.layout.labels)[1:], ignore_index=IGNORED, reduction="sum"
        )
        loss.backward()
        total += loss.item()
    batch = collate(rendered)
    logits = ours(**{key: value for key, value in batch.items() if key != "labels"}).logits
    packed = torch.nn.functional.cross_entropy(
        logits[0, :-1], batch["labels"][0, 1:], ignore_index=IGNORED, reduction="sum"
    )
    packed.backward()
    # Measured worst case over families: 9.3e-8
    assert abs(packed.item() - total) / total < 1e-6
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        theirs_grad = expected[name].grad
        assert parameter.grad is not None, name
        if theirs_grad is None:
            theirs_grad = torch.zeros_like(parameter)
        scale = theirs_grad.abs().max().clamp(min=1e-6)
        worst = ((parameter.grad - theirs_grad).abs().max() / scale).item()
        # Measured worst case over families and parameters: 7.6e-7 of the parameter's largest gradient
        assert worst < 1e-5, f"{name}: {worst}"
