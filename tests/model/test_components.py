"""The component table, requires_grad and the parameters that an optimizer step changes agree."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.adapters import linear_layers
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.build import base_model, refuse_what_experts_cannot
from qwenvl_train.model.components import COMPONENTS, component_of, component_table
from qwenvl_train.model.forward import use_packed_forward
from qwenvl_train.model.trainable import select_trained
from tests.conftest import FAMILIES as ALL_FAMILIES
from tests.conftest import in_rotation
from tests.settings import run_config


@pytest.fixture(params=ALL_FAMILIES)
def model_type(request) -> str:
    return request.param


ALL_TUNED = {f"tune_mm_{component}": True for component in COMPONENTS}


def tiny(model_type, processor, tie=True):
    model = build_model(model_type, seed=0, tie=tie)
    use_packed_forward(model, processor.image_processor)
    use_packed_attention(model)
    return model


def loss_of(model, batch):
    return -model(**batch).log_probs.mean()


def test_components_cover_every_parameter_once(model_type, batches):
    processor, _ = batches(model_type)
    family = FAMILIES[model_type]
    model = tiny(model_type, processor, tie=False)
    for name, _ in model.named_parameters():
        owners = [
            component
            for component, prefixes in family.components.items()
            if any(name.startswith(f"{prefix}.") for prefix in prefixes)
        ]
        assert len(owners) == 1, name
    owned = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        owned[component_of(name, family)] += parameter.numel()
    table = component_table(model, family, run_config())
    assert {row.component: row.parameters for row in table} == owned
    if "deepstack" in "".join(name for name, _ in model.named_parameters()):
        assert component_of("model.visual.deepstack_merger_list.0.norm.weight", family) == "mlp"
        assert component_of("model.visual.pos_embed.weight", family) == "vision"
    assert component_of("lm_head.weight", family) == "llm"


# Modes of vision, mlp and llm. Every pair of modes of two components occurs.
F, A, X = "full", "lora", "frozen"
MODES = [(X, F, F), (X, A, A), (F, X, F), (F, F, A), (F, A, X), (A, X, A), (A, F, X), (A, A, F), (X, F, A), (F, F, F)]
CASES = {"-".join(modes): (modes, True) for modes in MODES}
CASES |= {f"{name}-untied": (modes, False) for name, (modes, _) in CASES.items() if modes[2] == F}


@pytest.mark.parametrize(("model_type", "case"), in_rotation(CASES))
def test_a_step_changes_what_the_table_says_and_nothing_else(model_type, case, batches):
    modes, tie = CASES[case]
    processor, batch = batches(model_type)
    family = FAMILIES[model_type]
    settings = {}
    for component, mode in zip(COMPONENTS, modes, strict=True):
        settings[f"tune_mm_{component}"] = mode != "frozen"
        settings[f"lora.{component}"] = mode == "lora"
    config = run_config(**settings)
    model = select_trained(tiny(model_type, processor, tie), family, config).train()
    table = {row.component: row for row in component_table(model, family, config)}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(2):  # adapters start with B = 0, so that A changes from the second step on
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    moved = dict.fromkeys(COMPONENTS, 0)
    still = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed <= parameter.requires_grad, name
        component = component_of(name, family)
        if parameter.requires_grad:
            (moved if changed else still)[component] += parameter.numel()
    for component, mode in zip(COMPONENTS, modes, strict=True):
        assert table[component].mode == mode
        assert moved[component] + still[component] == table[component].trained
        assert (moved[component] > 0) == (mode != "frozen")
        # Only weights without a gradient in this batch stay the same: those of an unused expert, and key biases up to
        # rounding.
        assert still[component] <= 0.25 * table[component].trained


def test_adapters_reach_exactly_the_linear_layers_of_their_component(model_type, batches):
    processor, _ = batches(model_type)
    family = FAMILIES[model_type]
    for component in COMPONENTS:
        plain = tiny(model_type, processor)
        expected = {
            name
            for name, module in plain.named_modules()
            if isinstance(module, torch.nn.Linear)
            and name != "lm_head"
            and component_of(f"{name}.x", family) == component
        }
        assert set(linear_layers(plain, family, component)) == expected
        model = select_trained(plain, family, run_config(**{f"tune_mm_{component}": True, f"lora.{component}": True}))
        reached = {name for name, module in model.get_base_model().named_modules() if hasattr(module, "lora_A")}
        experts = {name for name in reached if name.endswith((".experts", ".experts.base_layer"))}
        assert reached - experts == expected
        layers = model.get_base_model().config.text_config.num_hidden_layers
        assert len(experts) == (2 * layers if component == "llm" and family.expert_weights else 0)


def test_a_saved_adapter_holds_merger_and_adapters_only_and_loads_again(model_type, batches, checkpoints, tmp_path):
    processor, batch = batches(model_type)
    family = FAMILIES[model_type]
    config = run_config(**{"tune_mm_llm": True, "lora.llm": True, "tune_mm_mlp": True})
    base = AutoModelForImageTextToText.from_pretrained(checkpoints[model_type], dtype=torch.float32)
    use_packed_forward(base, processor.image_processor)
    use_packed_attention(base)
    model = select_trained(base, family, config)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    model.save_pretrained(tmp_path)
    stored = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert stored < 4 * trained + 200_000

    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    use_packed_forward(base_model(again), processor.image_processor)
    use_packed_attention(base_model(again))
    with torch.no_grad():
        # Measured worst case over families: 0.0
        assert abs(loss_of(again, batch) - loss_of(model.eval(), batch)) < 1e-6


def test_experts_in_4_bit_are_refused():
    config = run_config(**{"model.quantize": "nf4"})
    refuse_what_experts_cannot(config, FAMILIES["qwen3_vl"])
    with pytest.raises(UserError, match="quantize=none"):
        refuse_what_experts_cannot(config, FAMILIES["qwen3_vl_moe"])
