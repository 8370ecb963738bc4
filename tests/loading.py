"""A checkpoint's own parts, as a run would take them."""

from dataclasses import is_dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.family import Family
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.components import COMPONENTS
from qwenvl_train.model.forward import use_packed_forward
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.trainable import select_trained
from tests.settings import run_config


def family_of(checkpoint: Path) -> Family:
    return load_family(run_config(**{"model.path": str(checkpoint), "model.family": None}).model)


def renderer_of(processor, checkpoint: Path, preferences: bool = False, **data) -> Renderer:
    config = run_config(**{f"data.{key}": value for key, value in data.items()})
    return Renderer(processor, family_of(checkpoint), config.model.video, config.data, preferences=preferences)


def as_theirs_and_ours(model_type: str, checkpoint: Path, processor, adapters: bool) -> list[torch.nn.Module]:
    """A model as transformers runs it, and one that runs packed, trained in full or through the same adapters on every
    component, moved away from where they start, which is nothing."""
    tuned = {f"tune_mm_{name}": True for name in COMPONENTS} | {f"lora.{name}": adapters for name in COMPONENTS}
    made = []
    for packed in (False, True):
        model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
        if packed:
            use_packed_forward(model, processor.image_processor)
            use_packed_attention(model)
        torch.manual_seed(0)
        made.append(select_trained(model, FAMILIES[model_type], run_config(**tuned)))
        for name, parameter in made[-1].named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    return made


def assert_same(one, other) -> None:
    """Rows or batches, to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif is_dataclass(one):
        assert_same(vars(one), vars(other))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        assert one == other


def write_adapter(checkpoint, folder, **options):
    """Write an adapter with random weights, as PEFT alone makes it."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    torch.manual_seed(1)
    options = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["merger"], "r": 4} | options
    adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, **options))
    for name, parameter in adapted.named_parameters():
        if ".modules_to_save." in name:
            parameter.data += 0.01 * torch.randn_like(parameter)
    adapted.save_pretrained(folder)
    return folder
