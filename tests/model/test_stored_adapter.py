"""Adapters as model.path: the same model as PEFT loads, trained further or merged, and clear errors."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.build import build_copy, build_model
from qwenvl_train.model.forward import use_packed_forward
from qwenvl_train.model.merge import write_merged
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.stored_adapter import stored_adapter, with_stored_lora
from qwenvl_train.training.objectives.reference import of_first_weights
from tests.conftest import two_families_by_day
from tests.loading import write_adapter
from tests.settings import run_config

NOTHING = frozenset()


@pytest.fixture
def adapter(model_type, checkpoints, tmp_path):
    return write_adapter(checkpoints[model_type], tmp_path / "adapter")


def settings_of(adapter, **settings):
    config = run_config(**({"model.path": str(adapter), "model.family": None, "model.shape": None} | settings))
    return with_stored_lora(config, NOTHING)


LLM = {"tune_mm_llm": True, "lora.llm": True}


def theirs(checkpoint, adapter, processor, batch):
    """The log-probabilities of the learned tokens of a packed row, from PEFT's model of this adapter."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    use_packed_forward(model, processor.image_processor)
    use_packed_attention(model)
    return scores_of(PeftModel.from_pretrained(model, adapter), batch)


def scores_of(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).log_probs


def apart(one, other):
    return float((one - other).abs().max())


@two_families_by_day
def test_an_adapter_of_peft_is_the_model_that_peft_loads(model_type, adapter, checkpoints, batches, tmp_path):
    processor, batch = batches(model_type)
    expected = theirs(checkpoints[model_type], adapter, processor, batch)
    family, config = FAMILIES[model_type], settings_of(adapter, **LLM)
    assert (config.lora.rank, config.lora.alpha) == (4, 8.0)
    model = build_model(config, family, processor, "fp32")
    # Measured worst case over families: 9.5e-7
    assert apart(scores_of(model, batch), expected) <= 1e-5
    assert torch.equal(scores_of(build_copy(config, family, processor, "fp32"), batch), scores_of(model, batch))
    # Only what the run trains has a gradient, and the merger that the adapter holds is saved again.
    assert all("lora_" in name for name, weight in model.named_parameters() if weight.requires_grad)
    model.save_pretrained(tmp_path / "again")
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())

    write_merged(stored_adapter(config.model), config.model, tmp_path / "merged")
    base = AutoModelForImageTextToText.from_pretrained(checkpoints[model_type], dtype="auto")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype="auto").state_dict()
    for name, tensor in PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict().items():
        assert torch.equal(merged[name], tensor.to(base.dtype)), name
    assert AutoProcessor.from_pretrained(tmp_path / "merged").to_dict() == processor.to_dict()


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl_moe"])
def test_the_reference_keeps_the_first_weights_and_leaves_the_trained_ones(model_type, adapter, batches):
    processor, batch = batches(model_type)
    model = build_model(settings_of(adapter, **LLM), FAMILIES[model_type], processor, "fp32").eval()
    first, reference = scores_of(model, batch), of_first_weights(model)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    for _ in range(2):
        (-model(**batch).log_probs.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = scores_of(model, batch)
    assert not torch.equal(moved, first)
    loss = -model(**batch).log_probs.sum()
    assert torch.equal(reference(batch), first)  # between a forward pass and its backward pass, too
    loss.backward()
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.requires_grad]
    optimizer.zero_grad()
    assert torch.equal(scores_of(model, batch), moved)
    (-model(**batch).log_probs.sum()).backward()
    again = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert all(map(torch.equal, gradients, again))


@pytest.mark.parametrize("model_type", ["qwen2_5_vl"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"tune_mm_vision": True, "lora.vision": True},
            "lora.vision=true: the adapter in model.path .* has no weights",
        ),
        (
            LLM | {"tune_mm_vision": True},
            "tune_mm_vision=true: the adapter in .* does not contain this component in full",
        ),
        (LLM | {"method": "dpo", "deepspeed.stage": 3}, "deepspeed=zero3: the reference is the adapter in model.path"),
    ],
)
def test_parts_that_the_adapter_lacks_are_refused(settings, message, adapter, batches):
    processor, _ = batches("qwen2_5_vl")
    with pytest.raises(UserError, match=message):
        build_model(settings_of(adapter, **settings), FAMILIES["qwen2_5_vl"], processor, "fp32")


@pytest.mark.parametrize("model_type", ["qwen2_5_vl"])
def test_a_rank_of_its_own_is_refused(adapter):
    config = run_config(**({"model.path": str(adapter), "lora.rank": 16} | LLM))
    with pytest.raises(UserError, match=r"lora\.rank=16: the adapter in model\.path .* has 4\. Leave lora.rank out"):
        with_stored_lora(config, frozenset({"lora.rank"}))
    assert with_stored_lora(config, NOTHING).lora.rank == 4


def test_merging_needs_an_adapter(checkpoints):
    config = run_config(**({"model.path": str(checkpoints["qwen2_vl"]), "lora.existing": "merge"} | LLM))
    with pytest.raises(UserError, match=r"lora\.existing=merge has no effect, since model\.path .* is not an adapter"):
        with_stored_lora(config, frozenset({"lora.existing"}))


@pytest.mark.parametrize("model_type", ["qwen2_5_vl"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_model_name_or_path": "/nowhere/model"}, "is an adapter for /nowhere/model, which does not exist"),
        ({"base_model_name_or_path": None}, "is an adapter that does not name its base model"),
        ({"peft_type": "LOHA"}, "is an adapter of type LOHA; only LoRA adapters can be loaded"),
        ({"peft_type": 1, "r": None}, "only LoRA adapters"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_one_sentence(changed, message, adapter):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(UserError, match=message):
        load_family(settings_of(adapter, **LLM).model)


@pytest.mark.parametrize("model_type", ["qwen2_5_vl"])
def test_the_base_model_is_found_beside_the_adapter_and_where_the_run_started(
    adapter, checkpoints, tmp_path, monkeypatch
):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "models/base"}))
    with pytest.raises(UserError, match="could not be downloaded from the model hub"):
        load_family(settings_of(adapter, **LLM).model)  # it may be a hub id
    started = tmp_path / "project"
    shutil.copytree(checkpoints["qwen2_5_vl"], started / "models" / "base")
    run = tmp_path / "runs" / "first"
    shutil.copytree(adapter, run / "checkpoints" / "step-1")
    (run / "environment.json").write_text(json.dumps({"working_directory": str(started)}))
    found = stored_adapter(settings_of(run / "checkpoints" / "step-1", **LLM).model)
    assert found.base.path == str(started / "models" / "base")
    with pytest.raises(UserError, match=r"first has no config\.json; .*, such as .*/checkpoints/step-1"):
        load_family(run_config(**{"model.path": str(run)}).model)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"step-290 does not exist; .*, such as runs/first/checkpoints/step-1\."):
        load_family(settings_of("runs/first/checkpoints/step-290", **LLM).model)


@pytest.mark.parametrize("model_type", ["qwen2_5_vl"])
@pytest.mark.parametrize("other", ["qwen3_vl", "narrower"])
def test_an_adapter_of_another_model_is_one_sentence(other, adapter, checkpoints, batches, tmp_path):
    processor, _ = batches("qwen2_5_vl")
    weights = load_file(adapter / "adapter_model.safetensors")
    if other == "narrower":
        weights = {name: tensor[:, :8].contiguous() if "lora_A" in name else tensor for name, tensor in weights.items()}
    else:
        weights = {name.replace("layers.0.", "layers.77."): tensor for name, tensor in weights.items()}
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="this adapter does not fit its base model"):
        build_model(settings_of(adapter, **LLM), FAMILIES["qwen2_5_vl"], processor, "fp32")


@pytest.mark.parametrize("model_type", ["qwen2_5_vl"])
def test_adapters_of_older_transformers_load(model_type, adapter, checkpoints, batches):
    """They have the names of published checkpoints: model.layers, and visual beside model."""
    processor, batch = batches(model_type)
    expected = theirs(checkpoints[model_type], adapter, processor, batch)
    file = adapter / "adapter_model.safetensors"
    new = load_file(file)
    old = {
        name.replace(".model.language_model.", ".model.").replace("model.model.visual.", "model.visual."): tensor
        for name, tensor in new.items()
    }
    assert not old.keys() & new.keys()
    save_file(old, file)
    model = build_model(settings_of(adapter, **LLM), FAMILIES[model_type], processor, "fp32")
    assert apart(scores_of(model, batch), expected) <= 1e-5
