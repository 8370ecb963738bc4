"""Float32 parameters under autocast give the results of torch and PEFT, with fewer casts."""

import copy
from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.utils._python_dispatch import TorchDispatchMode

from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.attention import set_attention, use_packed_attention
from qwenvl_train.model.autocast import autocast, keep_casts, use_autocast_once
from qwenvl_train.model.build import base_model
from qwenvl_train.model.components import COMPONENTS
from qwenvl_train.model.forward import use_packed_forward
from qwenvl_train.model.trainable import select_trained
from qwenvl_train.training.optim import keep_masters
from tests.settings import run_config

FAMILY = FAMILIES["qwen3_vl_moe"]


class Casts(TorchDispatchMode):
    """Counts the copies of floating-point tensors in another dtype, and their elements."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if function is torch.ops.aten._to_copy.default:
            source, dtypes = arguments[0], {arguments[0].dtype, result.dtype}
            if len(dtypes) == 2 and all(dtype.is_floating_point for dtype in dtypes):
                self.count.update(casts=1, elements=source.numel())
                # Norms and decays of Qwen3.5 are vectors, which its code casts itself in each pass.
                self.count.update(weights=isinstance(source, torch.nn.Parameter) and source.dim() > 1)
        return result


def trained_model(model_type: str, lora: bool, processor, once: bool) -> torch.nn.Module:
    """Return a model in bfloat16 with trained parameters in float32. Without `once`, it is as PEFT and transformers
    leave it."""
    family = FAMILIES[model_type]
    model = build_model(model_type).bfloat16()
    use_packed_forward(model, processor.image_processor)
    use_packed_attention(model)
    if once:
        use_autocast_once(model, family)
    settings = {f"tune_mm_{component}": True for component in COMPONENTS}
    settings |= {f"lora.{component}": lora for component in COMPONENTS}
    torch.manual_seed(0)
    model = select_trained(model, family, run_config(**settings)).train()
    keep_masters(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # B starts at 0 and would leave A without a gradient
            torch.nn.init.normal_(parameter, std=0.1)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and not once:
            module.cast_input_dtype_enabled = True
    return model


def one_pass(model: torch.nn.Module, batch: dict, context: torch.autocast) -> tuple[float, torch.Tensor, Counter]:
    """Return the loss, the gradients of all weights, and the casts."""
    with Casts() as counted, context:
        loss = -model(**batch).log_probs.mean()
        loss.backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return loss.item(), torch.cat(gradients), counted.count


def test_adapters_compute_the_same_with_fewer_casts(model_type, batches):
    processor, batch = batches(model_type)
    model, plain = (trained_model(model_type, True, processor, once) for once in (True, False))
    loss, gradients, casts = one_pass(model, batch, autocast("cpu", torch.bfloat16))
    plain_loss, plain_gradients, plain_casts = one_pass(plain, batch, torch.autocast("cpu", torch.bfloat16))
    assert loss == plain_loss
    assert torch.equal(gradients, plain_gradients)
    assert casts["casts"] < 0.75 * plain_casts["casts"]
    # The gated delta rule without kernels casts its arguments to float32 itself.
    share = 0.75 if FAMILIES[model_type].linear_attention else 0.65
    assert casts["elements"] < share * plain_casts["elements"]


# Autocast alone computes experts in float32. Other tests compare them with bfloat16.
@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_in_full_the_loss_is_the_same_and_gradients_are_as_close_to_float32(model_type, batches):
    processor, batch = batches(model_type)
    model, plain, exact = (trained_model(model_type, False, processor, once) for once in (True, False, False))
    loss, gradients, casts = one_pass(model, batch, autocast("cpu", torch.bfloat16))
    plain_loss, plain_gradients, plain_casts = one_pass(plain, batch, torch.autocast("cpu", torch.bfloat16))
    _, wanted, _ = one_pass(exact, batch, autocast("cpu", None))
    assert loss == plain_loss
    # Measured: 0.99 to 1.02 times the difference of PEFT and transformers; each is 0.004 to 0.009.
    assert (gradients - wanted).norm() <= 1.1 * (plain_gradients - wanted).norm()
    assert casts["casts"] < 0.97 * plain_casts["casts"]


def test_no_copy_of_a_weight_outlives_its_layer():
    layer = torch.nn.Linear(64, 64)
    states = torch.randn(2, 64, dtype=torch.bfloat16)
    with Casts() as counted, autocast("cpu", torch.bfloat16), torch.no_grad():
        layer(states)
        layer(states)
    assert counted.count["casts"] == 4, "a cast of weight and bias each time, for nothing is kept"


@pytest.fixture
def experts() -> torch.nn.Module:
    model = build_model("qwen3_vl_moe")
    use_autocast_once(model, FAMILY)
    return model.get_submodule(FAMILY.language_path).layers[0].mlp.experts


def outputs_and_gradients(experts: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(24, experts.hidden_dim, generator=generator).to(dtype).requires_grad_()
    chosen = torch.stack([torch.randperm(experts.num_experts, generator=generator)[:2] for _ in range(24)])
    output = experts(states, chosen, torch.full((24, 2), 0.5, dtype=dtype))
    output.float().square().sum().backward()
    return {"output": output, "states": states.grad} | {
        name: parameter.grad for name, parameter in experts.named_parameters()
    }


def test_under_autocast_they_compute_as_weights_of_its_type_do(experts):
    half = copy.deepcopy(experts).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = outputs_and_gradients(experts, torch.bfloat16)
    wanted = outputs_and_gradients(half, torch.bfloat16)
    assert got.keys() == wanted.keys()
    for name, tensor in got.items():
        assert tensor.dtype == (torch.float32 if name in dict(experts.named_parameters()) else torch.bfloat16)
        assert torch.equal(tensor.float(), wanted[name].float()), name


def test_no_product_is_in_float32_under_autocast(experts, monkeypatch):
    types = []
    product = torch.nn.functional.grouped_mm

    def watched(states, weight, **keywords):
        types.append((states.dtype, weight.dtype))
        return product(states, weight, **keywords)

    monkeypatch.setattr(torch.nn.functional, "grouped_mm", watched)
    with torch.autocast("cpu", torch.bfloat16):
        outputs_and_gradients(experts, torch.float32)
    assert set(types) == {(torch.bfloat16, torch.bfloat16)}


def test_without_autocast_nothing_changes(experts):
    plain = copy.deepcopy(experts)
    del plain.forward
    got, wanted = outputs_and_gradients(experts, torch.float32), outputs_and_gradients(plain, torch.float32)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert {name for name, _ in experts.named_parameters()} == {name for name, _ in plain.named_parameters()}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_generation_casts_each_weight_once(model_type, lora, batches):
    """As in a run, the pass itself opens autocast once more, since accelerate wraps it."""
    model = trained_model(model_type, lora, batches(model_type)[0], once=True).eval()
    set_attention(base_model(model), "sdpa")
    model.forward = autocast("cpu", torch.bfloat16)(model.forward)
    prompt = torch.arange(20, 40)[None]

    def generate(tokens: int, kept: bool) -> tuple[list[int], int]:
        with Casts() as counted, torch.no_grad(), autocast("cpu", torch.bfloat16):
            with keep_casts(base_model(model)) if kept else nullcontext():
                new = model.generate(input_ids=prompt, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False)
            assert not torch.is_autocast_cache_enabled()
        return new[0, 20:].tolist(), counted.count["weights"]

    (few, casts_of_few), (many, casts_of_many) = generate(2, kept=True), generate(12, kept=True)
    cast_again, casts_without = generate(12, kept=False)
    assert len(many) == 12
    assert many == cast_again
    assert many[:2] == few
    assert casts_of_many == casts_of_few > 0
    assert casts_without == 12 * casts_of_many
