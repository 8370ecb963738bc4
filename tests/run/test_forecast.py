"""The forecast of a run is the plan of `qwenvl-train plan` for the same settings and devices."""

import json

import pytest
import torch
from accelerate import PartialState

from qwenvl_train.cli import main
from qwenvl_train.config.compose import compose
from qwenvl_train.config.devices import DEVICES
from qwenvl_train.model.pretrained import load_config, load_family
from qwenvl_train.reporting.reporter import NO_FORECAST
from qwenvl_train.run import forecast as module
from qwenvl_train.run.forecast import forecast_of
from qwenvl_train.run.opening import open_run
from tests.conftest import conversation


@pytest.fixture
def write(pictures, write_rows):
    """Writes rows of supervised fine-tuning, or pairs."""
    rows = [
        conversation(("user", [pictures[n % 4], "What? " * (n % 7)]), ("assistant", ["Red. " * (1 + n % 5)]), id=str(n))
        for n in range(30)
    ]
    return lambda **more: write_rows([row | more for row in rows])


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(module, "has_gpu", lambda: True)
    monkeypatch.setattr(module, "this_device", lambda: DEVICES["a100_80gb"])


def forecast(folder, precision: str, *settings: str):
    composed = compose([*settings, f"output_dir={folder}", "data.workers=0", "logging=local"])
    family = load_family(composed.config.model)
    opened = open_run(composed, folder / "run", family, precision, PartialState(cpu=True))
    return forecast_of(opened.context, opened.data, load_config(composed.config.model), nodes=1)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen2_5_vl", ["+recipe=sft_lora", "data.pack_length=300", "train.accumulation=2"]),
        pytest.param(
            *("qwen2_vl", ["+recipe=sft_full", "data.packing=false", "train.batch_size=4", "train.checkpointing=none"]),
            marks=pytest.mark.nightly,
        ),
        ("qwen3_vl", ["+recipe=dpo_lora", "data.eval=null"]),
        ("qwen3_vl_moe", ["+recipe=sft_lora", "train.cache_vision=true", "train.max_steps=3"]),
    ],
)
def test_it_is_what_plan_prints(family, settings, write, checkpoints, tmp_path, capfd):
    rows = write(rejected_response="Blue.") if "+recipe=dpo_lora" in settings else write()
    settings = [f"model.path={checkpoints[family]}", f"data.train={rows}", *settings]
    state = torch.get_rng_state()
    found = forecast(tmp_path, "bf16", *settings)
    assert torch.equal(torch.get_rng_state(), state)
    capfd.readouterr()
    assert main(["plan", *settings, "plan.device=a100_80gb", "output=json", f"output_dir={tmp_path}"]) == 0
    planned = json.loads(capfd.readouterr().out)
    assert found.step_seconds == planned["seconds_per_step"] > 0
    assert found.memory_gib == planned["memory"]["total"] / 2**30 > 0.5


def test_what_is_not_known_has_no_forecast(write, checkpoints, tmp_path, monkeypatch):
    words = ["+recipe=sft_lora", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={write()}"]
    assert forecast(tmp_path, "bf16", *words) == NO_FORECAST  # without a GPU
    monkeypatch.setattr(module, "has_gpu", lambda: True)
    stream = [*words, "data.streaming=true", "train.max_steps=3"]
    assert forecast(tmp_path, "bf16", *stream) == NO_FORECAST
    unknown = forecast(tmp_path, "bf16", *words)
    assert unknown.step_seconds is None
    assert unknown.memory_gib > 0.5
    monkeypatch.setattr(module, "this_device", lambda: DEVICES["a100_80gb"])
    assert forecast(tmp_path, "fp32", *words).step_seconds is None
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    assert forecast(tmp_path, "bf16", *words) == unknown
    monkeypatch.setattr(module, "largest_pass", None)
    assert forecast(tmp_path, "bf16", *words) == NO_FORECAST  # an error does not end the run
