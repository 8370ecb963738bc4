"""Compiled blocks give the same losses and gradients, and are not recompiled for rows of other sizes."""

import pytest
import torch
from transformers import AutoProcessor

from qwenvl_train.data.batches.collate import collate
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.build import refuse_what_experts_cannot
from qwenvl_train.model.checkpointing import use_checkpointing
from qwenvl_train.model.compiling import use_compiled_blocks
from qwenvl_train.model.components import COMPONENTS
from qwenvl_train.model.forward import use_packed_forward
from qwenvl_train.model.trainable import select_trained
from tests.conftest import conversation, sample_of
from tests.loading import renderer_of
from tests.settings import run_config

pytestmark = pytest.mark.usefixtures("compiler")


def model_of(model_type: str, lora: bool, checkpointing: bool, processor, compiled: bool) -> torch.nn.Module:
    family = FAMILIES[model_type]
    paths = [family.vision_path, family.language_path]
    model = build_model(model_type)
    use_packed_forward(model, processor.image_processor)
    use_packed_attention(model)
    if checkpointing:
        use_checkpointing(model, paths, every=2, reentrant=False)
    if compiled:
        use_compiled_blocks(model, paths)
    tuned = {f"tune_mm_{component}": True for component in COMPONENTS}
    adapted = {f"lora.{component}": lora for component in COMPONENTS}
    torch.manual_seed(0)
    model = select_trained(model, family, run_config(**tuned, **adapted)).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # B starts at 0 and would leave A without a gradient
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def batches_of(checkpoint, pictures) -> tuple:
    processor = AutoProcessor.from_pretrained(checkpoint)
    renderer = renderer_of(processor, checkpoint)
    a, b, c, d = pictures

    def row(*contents: list) -> dict:
        samples = [conversation(("user", parts), ("assistant", ["Red. " * len(parts)])) for parts in contents]
        return collate([renderer.render(sample_of(sample)) for sample in samples], renderer)

    first = [row([a, "What?"], ["Who?"]), row(["Who?"])]
    later = [
        row(["Who?"], ["Who?"]),
        row([d, "What is it?"], [d, "What is it?"], [d, "What is it?"], ["Why?"]),
        row([a, b, c, d, "Which?"]),
        row(["What is this? " * 9], [c, "Is it?"]),
        row(["Where is it now?"]),
        row([b, "Is it?"], [b, "Or is it?"], [c, "It is."], [c, a, "No, yes."], [d, "No."]),
    ]
    return processor, first, later


def losses_and_gradients(model: torch.nn.Module, batch: dict) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = -model(**batch).log_probs.sum()
    loss.backward()
    return loss.item(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


# Every day, tests/integration/test_compiled.py compiles a whole run.
CASES = [
    pytest.param("qwen2_5_vl", False, True, marks=pytest.mark.nightly, id="qwen2_5_vl"),
    pytest.param("qwen3_vl", True, True, id="qwen3_vl", marks=pytest.mark.nightly),
    pytest.param("qwen3_5", True, True, id="qwen3_5", marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("model_type", "lora", "checkpointing"), CASES)
def test_rows_of_any_size_run_through_the_same_code(model_type, lora, checkpointing, checkpoints, pictures):
    processor, first, later = batches_of(checkpoints[model_type], pictures)
    eager, compiled = (model_of(model_type, lora, checkpointing, processor, compiled) for compiled in (False, True))
    assert eager.state_dict().keys() == compiled.state_dict().keys()
    for batch in first:  # a row without media has a blank image of another size
        losses_and_gradients(compiled, batch)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in later:
            loss, gradients = losses_and_gradients(compiled, batch)
            expected, theirs = losses_and_gradients(eager, batch)
            # Measured worst case over families, with the C++ backend: 9.5e-8
            assert loss == pytest.approx(expected, rel=1e-6)
            assert gradients.keys() == theirs.keys()
            for name, gradient in theirs.items():
                scale = gradient.abs().max().clamp(min=1e-6)
                worst = ((gradients[name] - gradient).abs().max() / scale).item()
                # Measured worst case, as a share of the parameter's largest gradient: 2.3e-6
                assert worst < 1e-5, name
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_experts_are_refused():
    config = run_config(**{"train.compile": True})
    refuse_what_experts_cannot(config, FAMILIES["qwen3_vl"])
    with pytest.raises(UserError, match=r"Set train\.compile=false"):
        refuse_what_experts_cannot(config, FAMILIES["qwen3_vl_moe"])
