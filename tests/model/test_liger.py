"""Liger's kernels change no loss and no gradient, and the message about them counts the modules that use them."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from qwenvl_train.errors import UserError
from qwenvl_train.families import FAMILIES
from qwenvl_train.families.tiny import build_model
from qwenvl_train.model.build import refuse_what_needs_a_gpu, suggest_liger
from tests.settings import run_config

needs_liger = pytest.mark.skipif(find_spec("liger_kernel") is None, reason="needs liger-kernel (the extra liger)")

LLM_2 = "llm 3 RMSNorms, 1 SwiGLU, 1 rotary embedding"
LLM_3 = "llm 5 RMSNorms, 1 SwiGLU, 1 rotary embedding"  # two of the RMSNorms are of queries and keys
LLM_3_5 = "llm 7 RMSNorms, 2 SwiGLUs, 1 rotary embedding"  # a Gated DeltaNet layer, then one that attends
LLM_3_5_MOE = "llm 7 RMSNorms, 4 SwiGLUs, 1 rotary embedding"  # those of the shared experts included
PLAIN_TOWER = "vision no RMSNorm, no SwiGLU, 1 rotary embedding"
TOLD = {
    "qwen2_vl": f"Liger's kernels: {PLAIN_TOWER}; {LLM_2}",
    "qwen2_5_vl": f"Liger's kernels: vision 3 RMSNorms, 1 SwiGLU, 1 rotary embedding; {LLM_2}",
    "qwen3_vl": f"Liger's kernels: {PLAIN_TOWER}; {LLM_3}",
    "qwen3_vl_moe": f"Liger's kernels: {PLAIN_TOWER}; {LLM_3}",
    "qwen3_5": f"Liger's kernels: {PLAIN_TOWER}; {LLM_3_5}",
    "qwen3_5_moe": f"Liger's kernels: {PLAIN_TOWER}; {LLM_3_5_MOE}",
}
"""The message for a model with one block in each part."""


@pytest.fixture(scope="module")
def interpreted(checkpoints, tmp_path_factory) -> dict:
    picture = tmp_path_factory.mktemp("picture") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(picture)
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.interpreted_liger", checkpoints["qwen2_vl"].parent, picture],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


@needs_liger
@pytest.mark.nightly
@pytest.mark.parametrize("case", ["full", "adapters, recomputed"])
def test_losses_and_gradients_stay_the_same(model_type, case, interpreted):
    found = interpreted[model_type][case]
    # Measured worst cases, gradients as a fraction of the parameter's largest: 1.6e-7 and 3.1e-6
    assert found["loss"] < 1e-6
    assert found["gradients"] < 1e-5
    assert found["told"] == TOLD[model_type]


@needs_liger
@pytest.mark.nightly
def test_rounding_in_16_bits_is_no_worse(model_type, interpreted):
    """Compares the distance of all gradients from those in float32. The measured worst case is 1.01 times torch's."""
    (errors,) = (found["in 16 bits"] for found in interpreted[model_type].values() if "in 16 bits" in found)
    assert errors["plain"] > 0
    assert errors["fused"] < 1.2 * errors["plain"]


@needs_liger
def test_no_other_model_is_touched(model_type):
    from qwenvl_train.model.liger import summary, use_liger

    family = FAMILIES[model_type]
    fused, other = build_model(model_type), build_model(model_type)
    forwards = {type(module): type(module).forward for module in other.modules()}
    use_liger(fused)
    assert fused.state_dict().keys() == other.state_dict().keys()
    assert all(kind.forward is forward for kind, forward in forwards.items())
    assert not any(name in vars(module) for module in other.modules() for name in ("forward", "_apply_gate"))
    assert " 0 of " in summary(other, family)
    assert " 0 of " not in summary(fused, family)
    states = torch.zeros(1, 1, other.config.text_config.hidden_size)
    assert other.model.language_model.norm(states).shape == states.shape


@needs_liger
def test_what_does_not_run_on_them_is_told():
    from qwenvl_train.model.liger import summary, use_liger

    family = FAMILIES["qwen3_vl_moe"]
    model = build_model("qwen3_vl_moe")
    model.config.text_config._experts_implementation = "eager"  # eager experts have their own gates
    use_liger(model)
    del vars(model.model.language_model.norm)["forward"]
    assert summary(model, family).endswith("llm 12 of 13 RMSNorms, 0 of 3 SwiGLUs, 3 rotary embeddings")


@pytest.mark.parametrize("cuda", [False, True])
def test_they_need_a_gpu(cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    config = run_config(**{"train.liger": True})
    if cuda:
        refuse_what_needs_a_gpu(config)
    else:
        with pytest.raises(UserError, match=r"train\.liger=true: .* set it to false"):
            refuse_what_needs_a_gpu(config)


@pytest.mark.gpu
@needs_liger
def test_on_a_gpu_they_give_what_torch_does(model_type):
    from qwenvl_train.model.liger import use_liger

    def logits(liger: bool) -> torch.Tensor:
        model = build_model(model_type).cuda()
        if liger:
            use_liger(model)
        ids = torch.arange(20, device="cuda")[None]
        out = model(input_ids=ids).logits
        out.square().mean().backward()
        return torch.cat([out.flatten().detach(), model.model.language_model.norm.weight.grad])

    torch.testing.assert_close(logits(True), logits(False), rtol=1e-3, atol=1e-4)


def test_a_run_that_could_use_it_says_so(monkeypatch):
    pytest.importorskip("liger_kernel")
    assert suggest_liger(run_config()) is None, "there is no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "train.liger=true" in suggest_liger(run_config())
    assert suggest_liger(run_config(**{"train.liger": True})) is None
    assert suggest_liger(run_config(**{"train.compile": True})) is None
