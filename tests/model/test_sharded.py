"""A checkpoint that has only each process's share of the weights is opened as one that has them whole."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from qwenvl_train.cli import main
from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.model.adapter_files import lora_tensors, size_of_lora
from qwenvl_train.model.adapters import read_weights, with_stored_adapter
from qwenvl_train.model.load import identity_of, load_model
from qwenvl_train.model.published import tensors_in
from qwenvl_train.model.sharded import is_sharded, load_sharded
from qwenvl_train.model.stored_adapter import stored_adapter
from tests.loading import write_adapter
from tests.settings import run_config
from tests.shares import sharded_copy


def model_in(folder: Path):
    return run_config(**{"model.path": str(folder), "model.family": None, "model.shape": None}).model


def shares_of(checkpoint: Path, folder: Path) -> Path:
    """Its vision tower is frozen and stored in bfloat16."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    weights = dict(model.named_parameters(remove_duplicate=False))
    frozen = {name for name in weights if ".visual." in name}
    stored = {name: weight.bfloat16() if name in frozen else weight for name, weight in weights.items()}
    return sharded_copy(checkpoint, stored, folder, weights.keys() - frozen)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_whole_model(model_type, precision, checkpoints, tmp_path):
    folder = shares_of(checkpoints[model_type], tmp_path / "step-1")
    assert is_sharded(folder)
    found = load_model(model_in(folder), FAMILIES[model_type], precision)
    expected = load_model(model_in(checkpoints[model_type]), FAMILIES[model_type], precision)
    for name, weight in expected.state_dict().items():
        rounded = weight.bfloat16().to(weight) if ".visual." in name else weight
        assert torch.equal(found.state_dict()[name], rounded), name
    assert found.dtype == expected.dtype
    assert found.generation_config == expected.generation_config
    assert found.name_or_path == found.config.name_or_path == str(folder)
    if found.config.tie_word_embeddings:
        assert found.get_output_embeddings().weight is found.get_input_embeddings().weight


def adapter_with_shares(checkpoint: Path, folder: Path, without: str = "") -> tuple[Path, Path]:
    """An adapter as PEFT stores it, and the same one as shares, without one of its weights."""
    whole = write_adapter(checkpoint, folder / "whole")
    stored = stored_adapter(model_in(whole))
    model = with_stored_adapter(AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32), stored)
    read_weights(model, stored)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad and name != without}
    return whole, sharded_copy(whole, weights, folder / "shares", set(weights))


def test_an_adapter(checkpoints, tmp_path):
    checkpoint = checkpoints["qwen2_5_vl"]
    whole, shares = adapter_with_shares(checkpoint, tmp_path)
    states = []
    for folder in (whole, shares):
        stored = stored_adapter(model_in(folder))
        base = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
        read_weights(model := with_stored_adapter(base, stored), stored)
        states.append(model.state_dict())
    assert any("lora_B" in name and weight.any() for name, weight in states[0].items())
    for name, weight in states[0].items():
        assert torch.equal(states[1][name], weight), name
    mine, theirs = (lora_tensors(stored_adapter(model_in(folder))) for folder in (shares, whole))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert size_of_lora(stored_adapter(model_in(shares))) == sum(tensor.nbytes for tensor in theirs.values())


@pytest.mark.parametrize(
    "missing", ["language_model.layers.0.self_attn.q_proj.lora_A", "visual.merger.modules_to_save"]
)
def test_an_adapter_without_one_of_its_weights(missing, checkpoints, tmp_path):
    name = f"base_model.model.model.{missing}.default.{'weight' if 'lora' in missing else 'ln_q.weight'}"
    _, folder = adapter_with_shares(checkpoints["qwen2_5_vl"], tmp_path, without=name)
    adapter = stored_adapter(model_in(folder))
    base = AutoModelForImageTextToText.from_pretrained(checkpoints["qwen2_5_vl"], dtype=torch.float32)
    with pytest.raises(UserError, match=f"{re.escape(name)} is missing"):
        read_weights(with_stored_adapter(base, adapter), adapter)


def test_a_whole_model_without_one_of_its_weights(checkpoints, tmp_path):
    """transformers would fill it with random numbers."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoints["qwen2_5_vl"], dtype=torch.float32)
    weights = {name: weight for name, weight in model.named_parameters() if name != "model.visual.merger.ln_q.weight"}
    folder = sharded_copy(checkpoints["qwen2_5_vl"], weights, tmp_path / "step-1", set(weights))
    with pytest.raises(UserError, match=r"cannot be put together: model\.visual\.merger\.ln_q\.weight is missing"):
        load_sharded(folder)


def test_another_share_is_another_model(checkpoints, tmp_path):
    """Stored answers and values of the reference belong to one set of weights."""
    folder = shares_of(checkpoints["qwen2_5_vl"], tmp_path / "step-1")
    before = identity_of(model_in(folder))
    (share,) = folder.glob("global_step1/*rank_2_*optim_states.pt")
    share.write_bytes(share.read_bytes() + b"0")
    assert identity_of(model_in(folder)) != before


def test_a_missing_share_is_told(checkpoints, tmp_path):
    folder = shares_of(checkpoints["qwen2_5_vl"], tmp_path / "step-1")
    next(folder.glob("global_step1/*rank_2_*optim_states.pt")).unlink()
    with pytest.raises(UserError, match=r"the weights in .*step-1 cannot be put together: Expected 3 of .* found 2"):
        load_sharded(folder)


def test_a_checkpoint_with_weights_is_not_sharded(checkpoints, tmp_path):
    folder = shares_of(checkpoints["qwen2_5_vl"], tmp_path / "step-1")
    shutil.copyfile(checkpoints["qwen2_5_vl"] / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    assert not is_sharded(folder)
    assert not is_sharded(tmp_path / "none")


def test_what_needs_whole_weights_says_how_to_get_them(checkpoints, tmp_path, capsys):
    folder = shares_of(checkpoints["qwen2_5_vl"], tmp_path / "step-1")
    told = "its weights are divided among processes; qwenvl-train export run=… puts them together"
    with pytest.raises(UserError, match=told):
        tensors_in(folder)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "?"}]}), encoding="utf-8")
    words = ["+recipe=sft_lora", f"model.path={folder}", f"data.train={tmp_path / 'rows.jsonl'}"]
    assert main([*words, f"output_dir={tmp_path}", "logging=local"]) == 2
    assert f"model.path {folder}: {told}. Train the model that it writes." in capsys.readouterr().err
