"""Groups of settings that must share one trajectory, through the real command."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.commands import rows, train
from tests.conftest import by_pairs, conversation, two_families_by_day


@pytest.fixture
def uneven(pictures, write_rows):
    """Answers of very different lengths: a mean of means would give another gradient than the mean."""
    answers = ["Red.", "A red circle " * 12, "No", "The ring is left of the square and above it. " * 3] * 4
    return write_rows(
        [
            conversation(
                ("user", [pictures[index % 4], f"What is it? {index}"] if index % 3 else [f"Who? {index}"]),
                ("assistant", [answer]),
                id=str(index),
            )
            for index, answer in enumerate(answers)
        ]
    )


FULL = ("tune_mm_vision=true", "tune_mm_mlp=true", "tune_mm_llm=true", "train.lr=1e-4", "train.schedule=constant")
STEPS = ("data.packing=false", "train.warmup=0", "train.max_steps=3", "train.log_steps=1", "data.workers=0")
PLAIN = "train.checkpointing=none"


def curve(folder):
    return [(row["loss"], row["grad_norm"]) for row in rows(folder)]


def weights(folder):
    return load_file(folder / "checkpoints" / "step-3" / "model.safetensors")


@two_families_by_day
def test_8x1_4x2_and_1x8_share_one_trajectory(model_type, checkpoints, uneven, tmp_path):
    common = (f"model.path={checkpoints[model_type]}", f"data.train={uneven}", *FULL, *STEPS, PLAIN)
    runs = [
        train(tmp_path, *common, f"train.batch_size={size}", f"train.accumulation={8 // size}", name=f"b{size}")
        for size in (8, 4, 1)
    ]
    first = curve(runs[0])
    assert len(first) == 3
    for other in runs[1:]:
        for (loss, norm), (other_loss, other_norm) in zip(first, curve(other), strict=True):
            # Measured worst case over families: 1.5e-7
            assert other_loss == pytest.approx(loss, rel=1e-6)
            assert other_norm == pytest.approx(norm, rel=1e-5)
        reference, final = weights(runs[0]), weights(other)
        for name, tensor in reference.items():
            # Measured worst case over families: 3.0e-7, after three steps of up to 1e-4 each
            assert (final[name].float() - tensor.float()).abs().max() <= 1e-5, name


@pytest.mark.parametrize(("model_type", "component"), by_pairs("vision", "llm"))
def test_recomputing_activations_changes_nothing(model_type, component, checkpoints, uneven, tmp_path):
    common = (f"model.path={checkpoints[model_type]}", f"data.train={uneven}", *FULL, *STEPS)
    plain = train(tmp_path, *common, PLAIN, name="plain")
    for where in (component, "all"):
        saving = train(tmp_path, *common, f"train.checkpointing={where}", name=where)
        for one, other in zip(curve(plain), curve(saving), strict=True):
            assert other == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize(
    ("model_type", "recipe"),
    [
        ("qwen2_5_vl", "sft_lora"),
        ("qwen3_vl", "sft_lora"),
        ("qwen3_vl_moe", "sft_full"),
        ("qwen3_5", "sft_full"),
        pytest.param("qwen2_vl", "sft_full", marks=pytest.mark.nightly),
        pytest.param("qwen2_vl", "sft_lora", marks=pytest.mark.nightly),
        pytest.param("qwen2_5_vl", "sft_full", marks=pytest.mark.nightly),
        pytest.param("qwen3_vl", "sft_full", marks=pytest.mark.nightly),
        pytest.param("qwen3_vl_moe", "sft_lora", marks=pytest.mark.nightly),
        pytest.param("qwen3_5", "sft_lora", marks=pytest.mark.nightly),
        pytest.param("qwen3_5_moe", "sft_lora", marks=pytest.mark.nightly),
        pytest.param("qwen3_5_moe", "sft_full", marks=pytest.mark.nightly),
    ],
)
def test_a_resumed_run_continues_the_same_curve(recipe, model_type, checkpoints, uneven, tmp_path):
    settings = (
        f"+recipe={recipe}",
        f"model.path={checkpoints[model_type]}",
        f"data.train={uneven}",
        "train.batch_size=2",
        "train.accumulation=2",
        "train.max_steps=6",
        "train.save_steps=3",
        "train.log_steps=1",
        "train.lr=1e-3",
        "data.workers=0",
    )
    whole = train(tmp_path, *settings)
    expected = rows(whole)
    shutil.copytree(whole, tmp_path / "killed" / "run")
    killed = tmp_path / "killed" / "run"
    shutil.rmtree(killed / "checkpoints" / "step-6")
    resumed = train(tmp_path / "killed", *settings)
    got = rows(resumed)
    assert [row["step"] for row in got] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(expected, got, strict=True):
        same = ("loss", "grad_norm", "lr", "tokens", "samples", "supervised_tokens", "epoch")
        assert {key: other[key] for key in same} == {key: one[key] for key in same}
    assert got[-1]["seconds"] > got[2]["seconds"]
    (name,) = {path.name for path in (whole / "checkpoints" / "step-6").glob("*model.safetensors")}
    final, again = (load_file(folder / "checkpoints" / "step-6" / name) for folder in (whole, resumed))
    assert all(torch.equal(tensor, again[key]) for key, tensor in final.items())
