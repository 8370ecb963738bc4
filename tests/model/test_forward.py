"""The packed forward pass does not synchronize with the device, and runs the vision tower once."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.data.batches.collate import collate
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.forward import _scores, use_packed_forward
from tests.conftest import conversation, sample_of
from tests.loading import renderer_of
from tests.videos import write_video

# Operations with which the host reads a value from the device.
ASKING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive", "repeat_interleave"}


class Asked(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function.overloadpacket.__name__ in ASKING:
            self.names.append(str(function))
        return function(*arguments, **(keywords or {}))


@pytest.fixture
def packed(model_type, checkpoints):
    processor = AutoProcessor.from_pretrained(checkpoints[model_type])
    renderer = renderer_of(processor, checkpoints[model_type])
    model = AutoModelForImageTextToText.from_pretrained(checkpoints[model_type], dtype=torch.float32)
    use_packed_forward(model, processor.image_processor)
    use_packed_attention(model)
    return model, renderer


@pytest.fixture
def rows(pictures, tmp_path) -> dict[str, list]:
    clip = write_video(tmp_path / "clip.mp4", frames=8, size=(64, 48))
    asked = conversation(("user", [pictures[0], "What?"]), ("assistant", ["Red."]))
    watched = conversation(("user", [clip, pictures[2], "What?"]), ("assistant", ["Nothing."]))
    text = conversation(("user", ["Who?"]), ("assistant", ["Nobody."]))
    return {"text": [text], "media": [asked, watched, text, asked]}


@pytest.mark.parametrize("case", ["text", "media"])
def test_a_pass_asks_the_device_for_nothing(case, packed, rows, monkeypatch):
    model, renderer = packed
    batch = collate([renderer.render(sample_of(row)) for row in rows[case]], renderer)

    def refuse(tensor):
        raise AssertionError("a tensor is read by the host")

    looked = []
    model.model.visual.register_forward_hook(lambda *_: looked.append(1))
    asked = Asked()
    with asked, monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "tolist", refuse)
        (-model(**batch).log_probs.sum()).backward()
    assert asked.names == []
    assert looked == [1]
    # Parameters without input still take part, so that no process waits for gradients of another process.
    assert all(parameter.grad is not None for parameter in model.model.visual.parameters())


@pytest.mark.gpu
def test_a_pass_on_a_gpu_does_not_wait(packed, rows):
    model, renderer = packed
    model = model.to("cuda", torch.bfloat16)
    batch = collate([renderer.render(sample_of(row)) for row in rows["media"]], renderer)
    moved = {
        key: {name: _moved(one) for name, one in value.items()} if isinstance(value, dict) else _moved(value)
        for key, value in batch.items()
    }
    model(**moved).log_probs.sum().backward()  # sets up what is created only once
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(**moved).log_probs.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _moved(value):
    return value.to("cuda") if hasattr(value, "to") else value


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that is created."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.untyped_storage().nbytes() // one.element_size())
        return made


def test_logits_never_exist_for_the_whole_vocabulary():
    """At the published vocabulary size and 4,096 tokens at a time, one tile takes a quarter of a GiB in 16 bits."""
    vocabulary, learned = 151_936, 200
    states = torch.randn(2 * learned, 8, requires_grad=True)
    head = torch.nn.Linear(8, vocabulary, bias=False)
    labels = torch.randint(0, vocabulary, (2 * learned,))
    places = torch.arange(1, 2 * learned, 2)
    with Largest() as largest:
        scores = _scores(states[places - 1], head, labels[places], spread=False)
        scores.log_probs.sum().backward()
    assert largest.elements <= max(learned * 8192, head.weight.numel())
    logits = head(states[places - 1])
    expected = torch.log_softmax(logits, -1)[torch.arange(learned), labels[places]]
    # Measured worst case: 2.9e-6, relative to values of about 12
    assert (scores.log_probs - expected).abs().max() < 2e-5
    (wanted,) = torch.autograd.grad(expected.sum(), head.weight)
    assert (head.weight.grad - wanted).abs().max() < 1e-5
